"""Erasing episodes for good, in every store."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ww_core.errors import ConfigurationError, Unavailable
from ww_core.maintenance import scrub
from ww_core.models import Erased
from ww_core.stores import routing
from ww_core.stores.leftovers import drop_leftovers
from ww_core.stores.ports import GraphStore, VectorStore, Where

log = logging.getLogger(__name__)

STEP = 1000
"""Episodes whose vectors are removed at a time."""


def erase(
    graph: GraphStore, vectors: VectorStore, *, episode_ids: Sequence[str] = (), session_id: str | None = None
) -> Erased:
    """Erase the episodes, and everything of the session; the receipt counts what was there.

    From the first write on the episodes are gone for good, whatever happens next: where the vector store cannot be
    reached, StoreUnavailable is raised and the sweep removes the vectors once it is back.
    """
    points = _points(vectors, episode_ids, session_id)
    ids, memberships = graph.tombstone(episode_ids=episode_ids, session_id=session_id)
    removed = sum(finish(graph, vectors, ids[start : start + STEP]) for start in range(0, len(ids), STEP))
    if session_id is not None:
        finish_session(graph, vectors, session_id)
    if ids:  # a sweep that runs just now sees the tombstones too, and may have been quicker
        removed = max(removed, points)
    log.info("erased", extra={"action": "erase", "episodes": len(ids), "vectors": removed})
    return Erased(episodes=len(ids), vectors=removed, memberships=memberships)


def _points(vectors: VectorStore, episode_ids: Sequence[str], session_id: str | None) -> int:
    """How many points there are to remove, 0 where the vector store cannot be asked."""
    try:
        if session_id is not None:
            return vectors.count(Where(sessions=(session_id,), archived=None))
        return sum(points for _, points in vectors.generations(episode_ids).values())
    except (Unavailable, ConfigurationError):
        return 0


def finish(graph: GraphStore, vectors: VectorStore, episode_ids: Sequence[str]) -> int:
    """Remove the vectors behind tombstones and tick them off; how many points there were."""
    if vectors.generations(episode_ids):
        scrub.note(graph)  # before, lest a crash in between forgets it; after, lest a scrub that runs misses it
    removed = vectors.delete(episode_ids)
    if removed:
        scrub.note(graph)
    graph.finish_tombstones(episode_ids)
    return removed


def finish_session(graph: GraphStore, vectors: VectorStore, session_id: str) -> None:
    """Remove the centroids of a session erased whole, then its name; where it lives again, what its run of now made
    stays."""
    vectors.drop_centroids(session_id, keep=list(graph.current_attempts([session_id]).values()))
    drop_leftovers(graph, session_id)
    routing.forget_session(graph, session_id)
    graph.finish_session(session_id)
