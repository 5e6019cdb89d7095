"""Whether an episode is what a filter means: the last word, by the record and not by the index."""

from __future__ import annotations

from ww_core.models import Episode, State, scalar_context
from ww_core.stores.ports import Where


def matches(episode: Episode, where: Where) -> bool:
    """Whether ``episode`` as the graph store has it now belongs to ``where``. Cells mean members of the clusters."""
    if where.sessions and episode.session_id not in where.sessions:
        return False
    if where.since is not None and (episode.timestamp is None or episode.timestamp < where.since):
        return False
    if where.until is not None and (episode.timestamp is None or episode.timestamp >= where.until):
        return False
    if where.outcomes and episode.outcome not in where.outcomes:
        return False
    if where.episode_ids and episode.episode_id not in where.episode_ids:
        return False
    if where.archived is not None and episode.archived != where.archived:
        return False
    if where.cells and episode.cluster_id not in where.cells and not (where.uncelled and episode.nearest is None):
        return False
    known = scalar_context(episode.context) if where.context else {}
    return all(known.get(key) == value for key, value in where.context.items())


def findable(episode: Episode) -> bool:
    """Dead and erased episodes answer no query."""
    return episode.state not in (State.DEAD, State.ERASED)
