"""Error History: the last failures of this process, for people and for the error rate."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from ww_core.errors import InvalidInput, WorldWeaverError
from ww_core.masking import mask

MESSAGE_CHARS = 300


@dataclass(frozen=True, slots=True)
class LastFailure:
    """A failure as every process of the deployment may see it. ``error`` is the class, ``message`` holds no text of an
    episode: it is empty where the error may quote one."""

    at: datetime
    action: str
    error: str
    message: str


def without_text(error: BaseException) -> str:
    """What the error says, on one line and without passwords; empty where that may be what an episode says: such are
    refused values, and all errors but our own and the system's."""
    if isinstance(error, WorldWeaverError) and not isinstance(error, InvalidInput):
        said = str(error)
    elif isinstance(error, OSError) and error.strerror:
        said = error.strerror
    else:
        return ""
    return mask(" ".join(said.split()))[:MESSAGE_CHARS]


@dataclass(frozen=True, slots=True)
class Failure:
    """One operation that failed. ``action`` is what was tried, ``error`` is ``ErrorClass: message``; ``public`` is what
    other processes are told."""

    at: datetime
    action: str
    error: str
    public: LastFailure


class ErrorHistory:
    """A ring of the last ``size`` failures, oldest first. Thread-safe."""

    def __init__(self, size: int = 500) -> None:
        self._lock = threading.Lock()
        self._ring: deque[Failure] = deque(maxlen=size)

    @property
    def size(self) -> int:
        """How many failures are kept at most."""
        return self._ring.maxlen or 0

    def resize(self, size: int) -> None:
        """Keep the last ``size`` (1 or more) from now on."""
        with self._lock:
            if size != self._ring.maxlen:
                self._ring = deque(self._ring, maxlen=size)

    def add(self, action: str, error: BaseException) -> None:
        """Take down that ``action`` failed just now."""
        at, kind = datetime.now(UTC), type(error).__name__
        public = LastFailure(at, action, kind, without_text(error))
        failure = Failure(at, action, f"{kind}: {error}"[:500], public)
        with self._lock:
            self._ring.append(failure)

    def latest(self) -> tuple[Failure, ...]:
        """Those that are kept, oldest first."""
        with self._lock:
            return tuple(self._ring)
