"""How memory fades: FSRS retrievability, what a recall does to stability, and when an episode is archived.

Notes
-----
The forgetting curve and the shape of the stability update follow FSRS-4.5 (Ye et al., "A stochastic shortest path
algorithm for optimizing spaced repetition scheduling", KDD 2022, and the open algorithm's published formulas), with
difficulty held constant because a recall is not graded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Episode

DECAY = -0.5
FACTOR = 19.0 / 81.0
"""Makes retrievability 0.9 after exactly one stability."""
INITIAL_STABILITY = 30.0
"""Days, of an episode that was never recalled; importance moves it between a third and three times that."""
MAX_STABILITY = 36_500.0
"""Days."""
GROWTH = 3.0
"""How much a recall at full forgetting multiplies a stability of one day, about."""
SATURATION = 0.2
"""Exponent by which stable memories gain less."""


def retrievability(days: NDArray[np.float64], stability: NDArray[np.float64]) -> NDArray[np.float64]:
    """R(t, S) = (1 + 19/81 t/S)^-0.5 of ages (n,) in days, 0 or more, and stabilities (n,) in days; range 0 to 1."""
    return np.asarray((1.0 + FACTOR * np.maximum(days, 0.0) / np.maximum(stability, 1e-6)) ** DECAY)


def initial_stability(importance: float) -> float:
    """Days, by importance 0 to 1: 10 for what does not matter, 30 in the middle, 90 for what matters most."""
    return float(INITIAL_STABILITY * 3.0 ** (2.0 * importance - 1.0))


def strengthened(stability: float, days: float) -> float:
    """Stability in days after a recall ``days`` since the last: the more was forgotten, the more it grows."""
    forgotten = 1.0 - float(retrievability(np.asarray([days]), np.asarray([stability]))[0])
    gain = GROWTH * stability**-SATURATION * np.expm1(2.0 * forgotten)
    return float(min(stability * (1.0 + gain), MAX_STABILITY))


def current_retrievability(episode: Episode, now: datetime) -> float:
    """Retrievability 0 to 1 of an episode at a moment, counted from its last recall or else from its timestamp."""
    stability = episode.stability or initial_stability(episode.importance)
    since = episode.last_recalled_at or episode.timestamp or now
    days = (now - since).total_seconds() / 86_400.0
    return float(retrievability(np.asarray([days]), np.asarray([stability]))[0])


def days_until(threshold: float, stability: float) -> float:
    """Days after which retrievability falls to ``threshold`` (above 0, at most 1) at a stability in days."""
    return float(stability * (threshold ** (1.0 / DECAY) - 1.0) / FACTOR)


def to_archive(episodes: Iterable[Episode], *, now: datetime, threshold: float) -> list[str]:
    """Ids of the episodes whose retrievability is below ``threshold`` (0 to 1) and that are not archived yet.

    What happened long ago and was stored a moment ago is new to the memory: time counts from when it was stored.
    """
    return [e.episode_id for e in episodes if not e.archived and _retained(e, now) < threshold]


def _retained(episode: Episode, now: datetime) -> float:
    if episode.last_recalled_at is None and episode.stored_at is not None and episode.timestamp is not None:
        episode = replace(episode, timestamp=max(episode.timestamp, episode.stored_at))
    return current_retrievability(episode, now)
