"""The memory of the default settings, as functions for callers with an event loop.

``ww.memory.sync`` has the same functions for callers without one, ``ww.memory.episodic`` the object behind them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from ww.memory.default import current, on_default
from ww.memory.episodic import EpisodicMemory
from ww_core.models import Episode

__all__ = [
    "about",
    "clusters",
    "consolidate",
    "counts",
    "flush",
    "forget",
    "get",
    "list",
    "neighbours",
    "recall",
    "recent",
    "rollback",
    "runs",
    "sessions",
    "store",
    "store_batch",
    "update",
    "verify",
    "working_memory",
]

store = on_default(EpisodicMemory.store)
store_batch = on_default(EpisodicMemory.store_batch)
recall = on_default(EpisodicMemory.recall)
get = on_default(EpisodicMemory.get)
update = on_default(EpisodicMemory.update)
forget = on_default(EpisodicMemory.forget)
sessions = on_default(EpisodicMemory.sessions)
neighbours = on_default(EpisodicMemory.neighbours)
clusters = on_default(EpisodicMemory.clusters)
about = on_default(EpisodicMemory.about)
runs = on_default(EpisodicMemory.runs)
working_memory = on_default(EpisodicMemory.working_memory)
recent = on_default(EpisodicMemory.recent)
consolidate = on_default(EpisodicMemory.consolidate)
rollback = on_default(EpisodicMemory.rollback)
flush = on_default(EpisodicMemory.flush)
counts = on_default(EpisodicMemory.counts)
verify = on_default(EpisodicMemory.verify)


async def list(  # noqa: A001 - the name the public surface promises
    session_id: str | Sequence[str] | None = None,
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
    outcome: str | Sequence[str] | None = None,
    context: Mapping[str, Any] | None = None,
    archived: bool | None = None,
    newest_first: bool = False,
) -> AsyncIterator[Episode]:
    """Episodes in the order of their times, read page by page."""
    stream = current().list(
        session_id,
        since=since,
        until=until,
        limit=limit,
        outcome=outcome,
        context=context,
        archived=archived,
        newest_first=newest_first,
    )
    async for episode in stream:
        yield episode
