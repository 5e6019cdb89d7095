"""Archiving what has faded: it is kept, and found by those who ask for it, but no longer in everybody's way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ww_core.consolidation.decay import days_until, initial_stability, to_archive
from ww_core.models import State
from ww_core.stores.pages import to_place, to_text
from ww_core.stores.ports import GraphStore, Where, place_of

CURSOR = "decay.cursor"
"""Fact: the place that the last pass ended at, as [ISO time, position, id]; absent: begin with the oldest."""
DECAY_SECONDS = 3600.0
"""Between two passes. Memories fade over years, but one pass is bounded in time, and many episodes take several."""
PAGE = 1000
MAX_SECONDS = 15.0
"""Of one pass; the next one goes on where it ended."""


@dataclass(frozen=True, slots=True)
class FadeReport:
    """What one pass did. ``more``: its time was up before it had seen everything."""

    looked_at: int = 0
    archived: int = 0
    more: bool = False


def fade(
    graph: GraphStore,
    *,
    threshold: float,
    now: datetime,
    max_seconds: float = MAX_SECONDS,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> FadeReport:
    """Archive embedded episodes whose retrievability at ``now`` is below ``threshold`` (0 to 1; 0: none ever is).

    Only what is older than the most fleeting episode may become is read, oldest first. Raises StoreUnavailable.
    """
    if threshold <= 0:
        return FadeReport()
    youngest = now - timedelta(days=min(days_until(threshold, initial_stability(0.0)), 365_000.0))
    end = clock() + max_seconds
    after = to_place(graph.get_fact(CURSOR))
    looked_at = archived = 0
    while not (over := should_stop() or clock() >= end):
        page = graph.page(Where(until=youngest, archived=False), after=after, limit=PAGE, states=(State.EMBEDDED,))
        looked_at += len(page)
        faded = to_archive(page, now=now, threshold=threshold)
        if faded:
            archived += graph.archive(faded)
        if len(page) < PAGE:
            after = None
            break
        after = place_of(page[-1])
    graph.put_fact(CURSOR, to_text(after))
    return FadeReport(looked_at, archived, over)
