"""A memory's methods for callers without an event loop, made from the asynchronous ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ww.memory.bridge import blocking, blocking_iterator

if TYPE_CHECKING:
    from ww.memory.episodic import EpisodicMemory


class SyncEpisodicMemory:
    """The methods of an EpisodicMemory, blocking. Inside a running event loop each raises BlockingCall."""

    def __init__(self, memory: EpisodicMemory) -> None:
        self.store = blocking(memory.store)
        self.store_batch = blocking(memory.store_batch)
        self.recall = blocking(memory.recall)
        self.get = blocking(memory.get)
        self.update = blocking(memory.update)
        self.forget = blocking(memory.forget)
        self.list = blocking_iterator(memory.list)
        self.sessions = blocking(memory.sessions)
        self.neighbours = blocking(memory.neighbours)
        self.clusters = blocking(memory.clusters)
        self.about = blocking(memory.about)
        self.runs = blocking(memory.runs)
        self.working_memory = blocking(memory.working_memory)
        self.recent = blocking(memory.recent)
        self.consolidate = blocking(memory.consolidate)
        self.rollback = blocking(memory.rollback)
        self.flush = blocking(memory.flush)
        self.counts = blocking(memory.counts)
        self.verify = blocking(memory.verify)
        self.close = memory.close
