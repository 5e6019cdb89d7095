"""Second thoughts on few candidates: neighbours support each other, repeats fold, variety on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise

import numpy as np

from ww_core.models import Episode, Vector
from ww_core.prompt import fold_key
from ww_core.recall.context import MAX_GAP, within_gap
from ww_core.recall.fusion import Scores

NEIGHBOUR_STEPS: tuple[float, ...] = (0.2, 0.1)
"""How much of a neighbour's score an episode gains, by the distance in its session."""


def neighbour_boost(
    total: Scores,
    episodes: Sequence[Episode],
    around: Mapping[str, Sequence[str | None]],
    *,
    steps: Sequence[float] = NEIGHBOUR_STEPS,
    max_gap: timedelta = MAX_GAP,
) -> Scores:
    """What each candidate gains from its neighbours in its stretch of the session, float32 (n,).

    ``around[id]`` lists the neighbours as ``GraphStore.around`` does, with a reach of ``len(steps)``. ``total`` (n,) is
    the score so far. Where there is no neighbour in the stretch, or it is no candidate, the mean stands in, which
    neither helps nor hurts.
    """
    rows = {episode.episode_id: row for row, episode in enumerate(episodes)}
    boost = np.zeros(len(episodes), np.float32)
    if not rows:
        return boost
    mean = float(total.mean())
    reach = len(steps)
    alone = sum(step * mean for step in (*reversed(steps), *steps))
    for row, episode in enumerate(episodes):
        neighbours = around.get(episode.episode_id)
        if neighbours is None:
            boost[row] = alone
            continue
        gain = 0.0
        for place, other in enumerate(neighbours):
            distance = reach - place if place < reach else place - reach + 1
            there = rows.get(other) if other is not None else None
            near = there is not None and within_gap(episode, episodes[there], distance * max_gap)
            value = float(total[there]) if near and there is not None else mean
            gain += steps[distance - 1] * value
        boost[row] = gain
    return boost


def accompanied(
    episodes: Sequence[Episode], *, steps: Sequence[float] = NEIGHBOUR_STEPS, max_gap: timedelta = MAX_GAP
) -> list[str]:
    """Ids of the candidates that may have a neighbour among the others: one of the same session near in time.

    A neighbour counts where it is a candidate itself and in the stretch; of all others none needs to be looked up.
    """
    reach = len(steps) * max_gap
    found: set[str] = set()
    by_session: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_session.setdefault(episode.session_id, []).append(episode)
    for together in by_session.values():
        dated = sorted((e.timestamp, e.episode_id) for e in together if e.timestamp is not None)
        if len(dated) < len(together):  # one without a time is near to all
            found.update(episode.episode_id for episode in together)
        for (earlier, one), (later, other) in pairwise(dated):
            if later - earlier <= reach:
                found.update((one, other))
    return [episode.episode_id for episode in episodes if episode.episode_id in found]


def fold(order: Sequence[int], episodes: Sequence[Episode], *, most: int | None = None) -> list[int]:
    """The rows of ``order`` (best first) without repeats of an earlier row, up to the first ``most``.

    A repeat has the same words in the same session, or was folded with it by consolidation.
    """
    seen: set[tuple[str, str]] = set()
    kept: list[int] = []
    for row in order:
        if len(kept) == most:
            break
        episode = episodes[row]
        root = ("id", episode.duplicate_of or episode.episode_id)
        words = (episode.session_id, fold_key(episode.content))
        if root in seen or words in seen:
            continue
        seen.update((root, words))
        kept.append(row)
    return kept


def maximal_marginal_relevance(
    order: Sequence[int], total: Scores, vectors: Mapping[int, Vector], *, trade: float, limit: int
) -> list[int]:
    """``limit`` rows of ``order``, each the best of what is relevant and unlike the rows before it.

    ``trade`` 1 keeps the order by relevance, 0 looks at variety alone. ``vectors[row]`` (d,) unit length; a row without
    one is unlike everything. Relevance is scaled to 0..1 over ``order`` so that it compares with a cosine.
    """
    if not order:
        return []
    scores = np.array([total[row] for row in order], np.float32)
    spread = float(scores.max() - scores.min())
    relevance = (scores - scores.min()) / spread if spread > 0 else np.ones_like(scores)
    dimension = next((vector.shape[0] for vector in vectors.values()), 1)
    matrix = np.stack([vectors.get(row, np.zeros(dimension, np.float32)) for row in order])
    closest = np.zeros(len(order), np.float32)
    free = np.ones(len(order), bool)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(order)):
        value = np.where(free, trade * relevance - (1.0 - trade) * closest, -np.inf)
        best = int(np.argmax(value))
        chosen.append(best)
        free[best] = False
        closest = np.maximum(closest, matrix @ matrix[best])
    return [order[i] for i in chosen]
