"""Reading one's own writes: episodes that this process stored a moment ago and that have no vectors yet."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ww_core.models import Episode, Vector
from ww_core.recall.fusion import Scores
from ww_core.stores.ports import SparseVector

MAX_ENCODED = 4
"""Texts embedded for one query at most; the others wait for the next query and are compared by their words."""
_MAX_KEPT = 1000


class RecentEpisodes(Protocol):
    """What recall needs of the CA1 buffer."""

    def episodes(self) -> tuple[Episode, ...]:
        """Oldest first; accepted by this process and not known to be embedded."""

    def discard(self, episode_ids: Iterable[str]) -> None:
        """They are embedded now, or gone."""


class TextEncoder(Protocol):
    """What recall needs of the embedding service. Both raise ModelUnavailable where no model answers in time."""

    def encode_query(self, text: str) -> Vector:
        """float32 (d,), unit length."""

    def encode(self, texts: Sequence[str]) -> Vector:
        """float32 (n, d), unit rows."""


class RecentVectors:
    """Vectors of recent episodes, made a few at a time so that no query pays for a burst of stores. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Vector] = OrderedDict()

    def of(self, episodes: Sequence[Episode], encoder: TextEncoder) -> dict[str, Vector]:
        """By episode id, of the latest episodes first; those not embedded yet are absent."""
        with self._lock:
            known = {e.episode_id: v for e in episodes if (v := self._kept.get((e.episode_id, e.content))) is not None}
        new = [episode for episode in reversed(episodes) if episode.episode_id not in known][:MAX_ENCODED]
        if new:
            matrix = encoder.encode([episode.content for episode in new])
            with self._lock:
                for episode, vector in zip(new, matrix, strict=True):
                    known[episode.episode_id] = vector
                    self._kept[(episode.episode_id, episode.content)] = vector
                while len(self._kept) > _MAX_KEPT:
                    self._kept.popitem(last=False)
        return known

    def forget(self) -> None:
        """Keep nothing: some of it may have been erased."""
        with self._lock:
            self._kept.clear()


def overlap(query: SparseVector, documents: Sequence[SparseVector]) -> Scores:
    """How much of the query's words each document has, float32 (n,), 0 none to 1 all; rare words count more.

    A word's weight is its IDF among ``documents``, which are all there is to estimate it from.
    """
    if not documents or not query.indices.size:
        return np.zeros(len(documents), np.float32)
    has = np.stack([np.isin(query.indices, document.indices, assume_unique=True) for document in documents])
    frequency = has.sum(axis=0)
    idf = np.log1p((len(documents) - frequency + 0.5) / (frequency + 0.5))
    shares: Scores = (has @ idf / idf.sum()).astype(np.float32)
    return shares


def on_scale(share: Scores, stored: Scores, *, from_zero: bool) -> Scores:
    """Shares (n,) between 0 and 1 placed on the scale of the scores (m,) that stored candidates have.

    A share of 1 is as good as the best of them, 0 as bad as the worst, or 0 where the scale begins there
    (``from_zero``) or where all are equal.
    """
    if stored.size == 0:
        return share
    low, high = float(stored.min()), float(stored.max())
    if from_zero or low == high:
        low = 0.0
    return (low + share * (high - low)).astype(np.float32)


def cosines(query: Vector | None, episodes: Sequence[Episode], vectors: Mapping[str, Vector]) -> Scores:
    """Float32 (n,); nan where an episode has no vector yet."""
    return np.array(
        [
            float(query @ vectors[e.episode_id]) if query is not None and e.episode_id in vectors else np.nan
            for e in episodes
        ],
        np.float32,
    )
