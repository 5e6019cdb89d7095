"""The functions of ``ww.memory`` for callers without an event loop, made from them."""

from __future__ import annotations

from ww import memory
from ww.memory.bridge import blocking, blocking_iterator

__all__ = memory.__all__

store = blocking(memory.store)
store_batch = blocking(memory.store_batch)
recall = blocking(memory.recall)
get = blocking(memory.get)
update = blocking(memory.update)
forget = blocking(memory.forget)
list = blocking_iterator(memory.list)  # noqa: A001 - the name the public surface promises
sessions = blocking(memory.sessions)
neighbours = blocking(memory.neighbours)
clusters = blocking(memory.clusters)
about = blocking(memory.about)
runs = blocking(memory.runs)
working_memory = blocking(memory.working_memory)
recent = blocking(memory.recent)
consolidate = blocking(memory.consolidate)
rollback = blocking(memory.rollback)
flush = blocking(memory.flush)
counts = blocking(memory.counts)
verify = blocking(memory.verify)
