"""Copy the living points of one shard into another, while the first goes on being written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import qdrant_edge as edge

from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import engine

PAGE = 500
"""Points copied in one step: the engine stops the process's other threads for about 50 ms meanwhile."""


@dataclass(slots=True)
class Touched:
    """What was written since the copy began."""

    episodes: set[str] = field(default_factory=set)
    centroids: bool = False


def copy(old: edge.EdgeShard, new: edge.EdgeShard, go_on: Callable[[], None]) -> None:
    """Every point that ``old`` holds; ``go_on`` is called before each step and may raise."""
    _copy(old, new, None, go_on)


def mirror(old: edge.EdgeShard, new: edge.EdgeShard, touched: Touched, go_on: Callable[[], None]) -> None:
    """Make ``new`` hold what ``old`` holds of the touched points, and nothing else of them."""
    episodes = sorted(touched.episodes)
    for start in range(0, len(episodes), PAGE):
        _renew(old, new, engine.any_of(p.EPISODE, episodes[start : start + PAGE]), go_on)
    if touched.centroids:
        _renew(old, new, engine.any_of(p.KIND, [p.CENTROID_KIND]), go_on)


def _renew(old: edge.EdgeShard, new: edge.EdgeShard, which: edge.Filter, go_on: Callable[[], None]) -> None:
    new.update(edge.UpdateOperation.delete_points_by_filter(which))
    _copy(old, new, which, go_on)


def _copy(old: edge.EdgeShard, new: edge.EdgeShard, which: edge.Filter | None, go_on: Callable[[], None]) -> None:
    offset: Any = None
    while True:
        go_on()
        request = edge.ScrollRequest(offset=offset, limit=PAGE, filter=which, with_payload=True, with_vector=True)
        records, offset = old.scroll(request)
        rows = [edge.Point(record.id, engine.known(record), record.payload) for record in records]
        if rows:
            new.update(edge.UpdateOperation.upsert_points(rows))
        if offset is None:
            return
