"""What several deployments of one process use together: stores, models and buffers."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

from ww_core.buffers import Buffers
from ww_core.forks import immortal


class Closes(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closes)


class Shared:
    """Resources by key, opened once and closed with their last user; buffers live as long as somebody holds them."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[Hashable, Any] = {}
        self._users: dict[Hashable, set[int]] = {}
        self._buffers: weakref.WeakValueDictionary[Hashable, Buffers] = weakref.WeakValueDictionary()
        self._buffers_lock = threading.Lock()

    def use(self, key: Hashable, user: int, make: Callable[[], C]) -> C:
        """The resource of that key, made where there is none."""
        with self._lock:
            if key not in self._open:
                self._open[key] = make()
            self._users.setdefault(key, set()).add(user)
            resource: C = self._open[key]
            return resource

    def leave(self, user: int) -> list[Closes]:
        """Take the user away from everything; what nobody uses any longer, for the caller to close."""
        idle = []
        with self._lock:
            for key, users in list(self._users.items()):
                users.discard(user)
                if not users:
                    idle.append(self._open.pop(key))
                    del self._users[key]
        return idle

    def buffers(self, key: Hashable, working_memory: int, ca1: int, episode_buffer: int) -> Buffers:
        """The buffers of that key, made with these sizes where there are none."""
        with self._buffers_lock:
            found = self._buffers.get(key)
            if found is None:
                found = Buffers(working_memory=working_memory, ca1=ca1, episode_buffer=episode_buffer)
                self._buffers[key] = found
            return found


_shared = Shared()


def process_shared() -> Shared:
    """The one of this process."""
    return _shared


def _anew_in_child() -> None:
    # SQLite connections, sockets and shards belong to the parent; locks may have been held by a thread that does not
    # exist here.
    global _shared
    immortal(_shared)
    _shared = Shared()


os.register_at_fork(after_in_child=_anew_in_child)
