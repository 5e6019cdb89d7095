"""Every error that World Weaver raises on purpose, in one shallow tree.

::

    WorldWeaverError
    ├── InvalidInput          (also ValueError)       the caller's value is refused
    ├── ConfigurationError                            a setting, file or directory is not usable as it is
    ├── EpisodeConflict                               this episode_id holds other content, or was erased
    ├── NotFound              (also LookupError)      no such episode, session, cluster or run
    ├── Busy                                          somebody else is doing this right now
    ├── FlushTimeout          (also TimeoutError)     the backlog did not drain in time
    ├── BlockingCall          (also RuntimeError)     a blocking function on the thread of a running event loop
    └── Unavailable           (also ConnectionError)  something outside this process cannot be used now
        ├── StoreUnavailable
        ├── BrokerUnavailable
        └── ModelUnavailable

A message says what is wrong and with which value; ``hint`` says the way out.
"""

from __future__ import annotations

from functools import partial

__all__ = [
    "BlockingCall",
    "BrokerUnavailable",
    "Busy",
    "ConfigurationError",
    "EpisodeConflict",
    "FlushTimeout",
    "InvalidInput",
    "ModelUnavailable",
    "NotFound",
    "StoreUnavailable",
    "Unavailable",
    "WorldWeaverError",
]


NO_SPACE = "no space left"
"""In the message of every StoreUnavailable whose cause is a full disk: waiting does not mend that."""


class WorldWeaverError(Exception):
    """Base of the tree. ``str(error)`` is one line; ``hint`` (may be empty) is what to do about it."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(cls: type[WorldWeaverError], message: str, hint: str) -> WorldWeaverError:
    return cls(message, hint=hint)


class InvalidInput(WorldWeaverError, ValueError):
    """A value handed in by the caller is refused; nothing was stored of it."""


class ConfigurationError(WorldWeaverError):
    """A setting, its file, the data directory or the collection does not fit; it says which and where."""


class EpisodeConflict(WorldWeaverError):
    """The episode_id exists with other content, or was erased for good.

    ``corrected`` is true where it was first stored with this very content, which an update has replaced since.
    """

    def __init__(self, message: str, *, hint: str = "", corrected: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.corrected = corrected

    def __reduce__(self) -> tuple[object, ...]:
        return (partial(type(self), hint=self.hint, corrected=self.corrected), (self.message,))


class NotFound(WorldWeaverError, LookupError):
    """No episode, session, cluster or run of that name."""


class Busy(WorldWeaverError):
    """The same work is under way elsewhere."""


class FlushTimeout(WorldWeaverError, TimeoutError):
    """Something stored earlier is neither embedded nor dead after the time given."""


class BlockingCall(WorldWeaverError, RuntimeError):
    """A blocking function was called on the thread of a running event loop, which it would have stopped."""


class WorkerLost(WorldWeaverError):
    """The process that ran a task is gone."""


class Unavailable(WorldWeaverError, ConnectionError):
    """Something outside this process cannot be used right now; trying again later may work."""


class StoreUnavailable(Unavailable):
    """The graph or vector store cannot be reached, or answers too slowly."""


class BrokerUnavailable(Unavailable):
    """The Celery broker cannot be reached."""


class ModelUnavailable(Unavailable):
    """The embedding model is missing or cannot be loaded."""
