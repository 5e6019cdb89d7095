"""What is known of an episode before any query: how fresh, how successful, how important it is.

Every function returns float32 (n,), one value for each episode, between 0 and 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from ww_core.models import Episode
from ww_core.recall.fusion import Scores
from ww_core.recall.query import QueryReading
from ww_core.recall.speakers import speaker_of

DEFAULT_STABILITY = 30.0
"""Days after which an episode that was never recalled is retrievable with probability 0.9."""
_OUTCOME_VALUES: Mapping[str | None, float] = {"success": 1.0, "partial": 0.5, "failure": 0.0}
"""What went well is worth more; no outcome and ``neutral`` lie between."""
_SECONDS_PER_DAY = 86_400.0


def retrievability(elapsed_days: float, stability_days: float) -> float:
    """R(t, S) = (1 + 19/81 * t/S) ** -0.5: 1 at once, 0.9 after S days (FSRS)."""
    stability = stability_days if stability_days > 0 else DEFAULT_STABILITY
    return float((1.0 + 19.0 / 81.0 * max(elapsed_days, 0.0) / stability) ** -0.5)


def recency(episodes: Sequence[Episode], now: datetime) -> Scores:
    """Retrievability since the last recall, else since the episode happened."""
    values = []
    for episode in episodes:
        since = episode.last_recalled_at or episode.timestamp or now
        days = (now - since).total_seconds() / _SECONDS_PER_DAY
        values.append(retrievability(days, episode.stability))
    return np.array(values, np.float32)


def outcome(episodes: Sequence[Episode]) -> Scores:
    """Success 1, failure 0, anything else in between."""
    return np.array([_OUTCOME_VALUES.get(episode.outcome, 0.5) for episode in episodes], np.float32)


def importance(episodes: Sequence[Episode]) -> Scores:
    """As the caller stored it."""
    return np.array([episode.importance for episode in episodes], np.float32)


def speaker(episodes: Sequence[Episode], reading: QueryReading) -> Scores:
    """1 where the query names exactly one speaker and the episode is theirs."""
    if len(reading.speakers) != 1:
        return np.zeros(len(episodes), np.float32)
    (name,) = reading.speakers
    return np.array([speaker_of(episode) == name for episode in episodes], np.float32)


def named(episodes: Sequence[Episode], reading: QueryReading) -> Scores:
    """The share of what the query names exactly that the episode's text holds, in any case, as words of their own."""
    wanted = [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE) for word in reading.exact]
    held = [sum(word.search(episode.content) is not None for word in wanted) for episode in episodes]
    return np.array(held, np.float32) / np.float32(max(1, len(wanted)))


def date(episodes: Sequence[Episode], reading: QueryReading) -> Scores:
    """1 where the query names a month, a year or a day and the episode is of it; where it names a day, 0.5 for others
    of that month."""
    if not reading.dated:
        return np.zeros(len(episodes), np.float32)
    times = [episode.timestamp for episode in episodes]
    inside = np.array([time is not None and reading.falls_in(time) for time in times], np.float32)
    if not reading.days:
        return inside
    there = np.array([time is not None and reading.falls_on(time) for time in times], np.float32)
    return (inside + there) * np.float32(0.5)


def cluster(episodes: Sequence[Episode], affinities: Mapping[str, float]) -> Scores:
    """The query's similarity to the episode's cluster, by ``affinities`` of cluster ids; 0 for the unclustered."""
    return np.array(
        [max(0.0, affinities.get(e.cluster_id, 0.0)) if e.cluster_id else 0.0 for e in episodes], np.float32
    )
