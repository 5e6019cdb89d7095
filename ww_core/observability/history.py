"""Error History: the last failures of this process, for people and for the error rate."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Failure:
    """One operation that failed. ``action`` is what was tried, ``error`` is ``ErrorClass: message``."""

    at: datetime
    action: str
    error: str


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
        failure = Failure(datetime.now(UTC), action, f"{type(error).__name__}: {error}"[:500])
        with self._lock:
            self._ring.append(failure)

    def latest(self) -> tuple[Failure, ...]:
        with self._lock:
            return tuple(self._ring)

    def clear(self) -> None:
        with self._lock:
            self._ring.clear()
