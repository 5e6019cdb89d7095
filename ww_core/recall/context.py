"""What surrounds an episode in its session: stretches, and what the context vectors are made of.

A *stretch* is a run of episodes without a long gap in time: one sitting of a conversation, one burst of work. Context
never crosses a stretch: what was said days apart explains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np

from ww_core.models import Episode, Vector

MAX_GAP = timedelta(minutes=30)
"""A longer pause between two episodes of a session starts a new stretch."""
DENSE_REACH = 1
"""Neighbours on each side whose vectors go into the dense ``context`` vector."""
BEFORE_SHARE, AFTER_SHARE = 0.7, 0.3
"""What the vectors of the neighbours weigh there beside the episode's own: what came before explains more."""
LEXICAL_REACH = 2
"""Neighbours on each side whose text goes into the sparse ``bm25_context`` vector."""
LEXICAL_TERMS = 80.0
"""Terms of such a text on average: five episodes of sixteen terms each."""
NEIGHBOUR_CHARS = 600
"""Of a neighbour's text only the part next to the episode is context, so that long neighbours do not drown it."""


def stretches(episodes: Sequence[Episode]) -> list[int]:
    """The number of the stretch, from 0, that each episode of one session lies in; episodes in session order."""
    numbers: list[int] = []
    for i, episode in enumerate(episodes):
        if i == 0:
            numbers.append(0)
            continue
        numbers.append(numbers[-1] + (0 if _joined(episodes[i - 1], episode) else 1))
    return numbers


def surroundings(
    episode: Episode, neighbours: Sequence[Episode], *, reach: int
) -> tuple[tuple[Episode, ...], tuple[Episode, ...]]:
    """The episodes before and after ``episode`` in its own stretch, at most ``reach`` on each side.

    ``neighbours``: session order, the episode itself among them.
    """
    ids = [other.episode_id for other in neighbours]
    if episode.episode_id not in ids:
        return (), ()
    here = ids.index(episode.episode_id)
    before: list[Episode] = []
    last = episode
    for other in reversed(neighbours[max(0, here - reach) : here]):
        if not _joined(other, last):
            break
        before.append(other)
        last = other
    after: list[Episode] = []
    last = episode
    for other in neighbours[here + 1 : here + 1 + reach]:
        if not _joined(last, other):
            break
        after.append(other)
        last = other
    return tuple(reversed(before)), tuple(after)


def context_vector(own: Vector, before: Sequence[Vector], after: Sequence[Vector]) -> Vector:
    """float32 (d,), unit length: own + BEFORE_SHARE * each before + AFTER_SHARE * each after, normalised.

    All are (d,) and of unit length; it is ``own`` where nothing is left of the sum.
    """
    among = own.astype(np.float32)
    for share, beside in ((BEFORE_SHARE, before), (AFTER_SHARE, after)):
        for vector in beside:
            among = among + share * vector
    norm = float(np.linalg.norm(among))
    unit: Vector = (among / norm if norm > 0 else own).astype(np.float32)
    return unit


def lexical_context_text(before: Sequence[Episode], episode: Episode, after: Sequence[Episode]) -> str:
    """The text whose terms make the ``bm25_context`` vector: the episode's own between its neighbours', one a line, in
    session order."""
    lines = [other.content[-NEIGHBOUR_CHARS:] for other in before]
    lines.append(episode.content)
    lines.extend(other.content[:NEIGHBOUR_CHARS] for other in after)
    return "\n".join(lines)


def within_gap(one: Episode, other: Episode, gap: timedelta = MAX_GAP) -> bool:
    """Whether the two are at most ``gap`` apart, whichever is first; so it is where a time is not known."""
    if one.timestamp is None or other.timestamp is None:
        return True
    return abs(one.timestamp - other.timestamp) <= gap


def _joined(earlier: Episode, later: Episode) -> bool:
    if earlier.timestamp is None or later.timestamp is None:
        return True
    return later.timestamp - earlier.timestamp <= MAX_GAP
