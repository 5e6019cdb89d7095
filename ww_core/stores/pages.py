"""A record of any size, read whole page by page; and where a walk through it stopped, to go on from there."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from ww_core.models import Episode, State
from ww_core.stores.ports import GraphStore, Membership, Place, Where, place_of


def episodes(
    graph: GraphStore,
    where: Where,
    *,
    size: int,
    most: float = math.inf,
    states: Sequence[State] = (),
    newest_first: bool = False,
) -> Iterator[list[Episode]]:
    """The first ``most`` episodes that are meant, in pages of at most ``size``, none of them empty."""
    after: Place | None = None
    while most > 0:
        wanted = int(min(most, size))
        page = graph.page(where, after=after, limit=wanted, states=states, newest_first=newest_first)
        if page:
            yield page
        if len(page) < wanted:
            return
        most -= len(page)
        after = place_of(page[-1])


def memberships(
    graph: GraphStore, session_id: str, cluster_id: str | None = None, *, size: int
) -> Iterator[list[Membership]]:
    """The current memberships of a session, or of one cluster, in pages of at most ``size``, none of them empty."""
    after: str | None = None
    while page := graph.memberships(session_id, after=after, limit=size, cluster_id=cluster_id):
        yield page
        if len(page) < size:
            return
        after = page[-1].episode_id


def to_text(place: Place | None) -> str:
    """A place as a fact keeps it; empty for none."""
    return "" if place is None else json.dumps([place[0].isoformat(), place[1], place[2]])


def to_place(text: str | None) -> Place | None:
    """The place that a fact keeps."""
    if not text:
        return None
    at, position, episode_id = json.loads(text)
    return datetime.fromisoformat(at), int(position), str(episode_id)
