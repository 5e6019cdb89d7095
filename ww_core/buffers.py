"""The small memories of one process: what is in mind, what is not embedded yet, what a session said last.

All hold episodes that are already durable in the graph store: an eviction loses speed or immediacy, never an episode.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from ww_core.models import Episode

MAX_SESSIONS = 1000
"""Sessions that have buffers of their own; the least recently used one gives way."""

_buffers: weakref.WeakSet[_Locked] = weakref.WeakSet()


class _Locked(Protocol):
    _lock: threading.RLock

    def __hash__(self) -> int: ...


class WorkingMemory:
    """What each session has in mind: the last ``size`` episodes it stored or recalled, latest last."""

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._lock = threading.RLock()
        self._sessions: OrderedDict[str, OrderedDict[str, Episode]] = OrderedDict()
        _buffers.add(self)

    def attend(self, episodes: Iterable[Episode]) -> None:
        """Bring episodes to mind, each in its own session."""
        with self._lock:
            for episode in episodes:
                mind = self._sessions.setdefault(episode.session_id, OrderedDict())
                self._sessions.move_to_end(episode.session_id)
                mind[episode.episode_id] = episode
                mind.move_to_end(episode.episode_id)
                while len(mind) > self.size:
                    mind.popitem(last=False)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def episodes(self, session_id: str) -> tuple[Episode, ...]:
        with self._lock:
            return tuple(self._sessions.get(session_id, {}).values())

    def forget(self, episode_ids: Collection[str], *, session_id: str | None = None) -> None:
        """Drop episodes by id, and a whole session where one is named."""
        with self._lock:
            if session_id is not None:
                self._sessions.pop(session_id, None)
            for mind in self._sessions.values():
                for episode_id in episode_ids:
                    mind.pop(episode_id, None)


class CA1Buffer:
    """The last ``size`` episodes that this process stored and that are not known to be embedded yet.

    Recall looks through them, so an episode is findable by its own process from the moment it is acknowledged.
    """

    def __init__(self, size: int = 50) -> None:
        self.size = size
        self._lock = threading.RLock()
        self._episodes: OrderedDict[str, Episode] = OrderedDict()
        _buffers.add(self)

    def __len__(self) -> int:
        return len(self._episodes)

    def add(self, episodes: Iterable[Episode]) -> None:
        """Episodes that were just acknowledged; the oldest give way."""
        with self._lock:
            for episode in episodes:
                self._episodes[episode.episode_id] = episode
                self._episodes.move_to_end(episode.episode_id)
            while len(self._episodes) > self.size:
                self._episodes.popitem(last=False)

    def episodes(self) -> tuple[Episode, ...]:
        """Oldest first."""
        with self._lock:
            return tuple(self._episodes.values())

    def discard(self, episode_ids: Iterable[str]) -> None:
        """Episodes that are embedded now, or gone."""
        with self._lock:
            for episode_id in episode_ids:
                self._episodes.pop(episode_id, None)

    def forget(self, episode_ids: Collection[str], *, session_id: str | None = None) -> None:
        """Drop episodes by id, and a whole session where one is named."""
        with self._lock:
            self.discard(episode_ids)
            if session_id is not None:
                self.discard([e.episode_id for e in self._episodes.values() if e.session_id == session_id])


class EpisodeBuffer:
    """The last ``size`` episodes that this process stored in each session, in the order they were stored."""

    def __init__(self, size: int = 100) -> None:
        self.size = size
        self._lock = threading.RLock()
        self._sessions: OrderedDict[str, deque[Episode]] = OrderedDict()
        _buffers.add(self)

    def add(self, episodes: Iterable[Episode]) -> None:
        with self._lock:
            for episode in episodes:
                latest = self._sessions.get(episode.session_id)
                if latest is None:
                    latest = self._sessions[episode.session_id] = deque(maxlen=self.size)
                latest.append(episode)
                self._sessions.move_to_end(episode.session_id)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def latest(self, session_id: str, limit: int | None = None) -> tuple[Episode, ...]:
        """The session's last ``limit`` (all that are kept by default), oldest first."""
        with self._lock:
            latest = tuple(self._sessions.get(session_id, ()))
        return latest if limit is None else latest[max(len(latest) - limit, 0) :]

    def same_content(self, session_id: str, content: str) -> Episode | None:
        """The session's latest buffered episode with exactly this content."""
        for episode in reversed(self.latest(session_id)):
            if episode.content == content:
                return episode
        return None

    def forget(self, episode_ids: Collection[str], *, session_id: str | None = None) -> None:
        """Drop episodes by id, and a whole session where one is named."""
        gone = set(episode_ids)
        with self._lock:
            if session_id is not None:
                self._sessions.pop(session_id, None)
            for name, latest in self._sessions.items():
                if any(e.episode_id in gone for e in latest):
                    kept = (e for e in latest if e.episode_id not in gone)
                    self._sessions[name] = deque(kept, maxlen=self.size)


class Buffers:
    """The three buffers of one deployment in one process, kept in step."""

    def __init__(self, *, working_memory: int = 4, ca1: int = 50, episode_buffer: int = 100) -> None:
        self.working_memory = WorkingMemory(working_memory)
        self.ca1 = CA1Buffer(ca1)
        self.episodes = EpisodeBuffer(episode_buffer)

    def stored(self, episodes: Sequence[Episode]) -> None:
        """Episodes that were just acknowledged, in input order."""
        self.ca1.add(episodes[-self.ca1.size :])
        self.episodes.add(episodes)
        self.working_memory.attend(episodes)

    def forget(self, episode_ids: Collection[str], *, session_id: str | None = None) -> None:
        """Erased or changed: no buffer holds them any longer."""
        for buffer in (self.ca1, self.episodes, self.working_memory):
            buffer.forget(episode_ids, session_id=session_id)


def _unlock_in_child() -> None:
    # a lock held by another thread at the moment of the fork would never be released in the child
    for buffer in _buffers:
        buffer._lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_in_child)
