"""Late interaction: the few best candidates are read again, word piece by word piece.

Each word piece of the query looks for its best match among the word pieces of an episode (MaxSim), and what it finds
counts by how rare the piece is. One vector for a whole text blurs what a single word decides; this does not.

Token vectors are kept as the signs of their components, one bit each: 48 bytes a word piece at 384 dimensions, about
1.5 KB an episode, where single precision takes 46 KB and finds no more. The query's own vectors stay exact.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Episode, Vector
from ww_core.recall.context import MAX_GAP
from ww_core.recall.fusion import Scores, zscore

NEIGHBOUR_SHARE = 0.95
"""What a match in a direct neighbour's text is worth, next to one in the episode's own."""
_MIN_TEXTS = 50
"""Rarity is not judged by fewer texts than this: every word piece counts the same."""


class Tokens(Protocol):
    """The word pieces of one text: ``ids`` int64 (t,) and ``vectors`` float32 (t, h), special tokens at both ends."""

    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def vectors(self) -> Vector: ...


class TokenEncoder(Protocol):
    """What late interaction needs of the embedding service."""

    def token_vectors(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> Sequence[Any]:
        """``Tokens`` of each text."""


@dataclass(frozen=True, slots=True)
class Signs:
    """The token vectors of one text: ``bits`` uint8 (t, h / 8), a set bit for each component above 0."""

    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, vectors: Vector) -> Signs:
        """From float vectors (t, h), h a multiple of 8."""
        return cls(np.packbits(vectors > 0, axis=1))

    def unpacked(self) -> Vector:
        """Float32 (t, h), unit rows."""
        signs = np.unpackbits(self.bits, axis=1).astype(np.float32) * 2 - 1
        return signs / np.float32(max(signs.shape[1], 1) ** 0.5)


def best_matches(query: Vector, texts: Sequence[Signs]) -> Scores:
    """For each text the best match of each word piece of the query, float32 (n, q).

    ``query`` float32 (q, h), unit rows. A text without word pieces matches nothing: -1.
    """
    best = np.full((len(texts), len(query)), -1.0, np.float32)
    for row, text in enumerate(texts):
        if len(text.bits):
            best[row] = (text.unpacked() @ query.T).max(axis=0)
    return best


class LateInteraction:
    """Reads candidates again; keeps the token vectors of up to ``kept`` episodes in memory. Thread-safe.

    What is not kept is encoded when a query needs it, at most ``candidates`` episodes and their direct neighbours: the
    first queries on new ground pay for that, later ones do not.
    """

    def __init__(self, encoder: TokenEncoder, *, candidates: int, kept: int) -> None:
        self._encoder = encoder
        self._candidates = candidates
        self._kept = kept
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[str, int], Signs] = OrderedDict()
        self._frequency: Counter[int] = Counter()
        self._seen = 0

    def part(
        self, query: str, episodes: Sequence[Episode], total: Scores, around: Mapping[str, Sequence[str | None]]
    ) -> Scores:
        """Normalised scores of ``episodes`` by late interaction, float32 (n,).

        Only the best by ``total`` (n,) are read; the others score like the worst of them. ``around`` as
        ``GraphStore.around`` gives it; neighbours count where they are candidates themselves.
        """
        top = np.argsort(-total, kind="stable")[: self._candidates].tolist()
        (pieces,) = self._encoder.token_vectors([query], kind="query")
        ids, vectors = pieces.ids[1:-1], pieces.vectors[1:-1]
        if len(top) < 2 or not len(ids):
            return np.zeros(len(episodes), np.float32)
        beside = {row: _beside(episodes[row], episodes, around) for row in top}
        rows = sorted({*top, *(other for others in beside.values() for other in others)})
        texts = self._signs([episodes[row] for row in rows])
        weights = self._rarity(ids)
        best = dict(zip(rows, best_matches(vectors, texts), strict=True))
        own = np.array([weights @ best[row] for row in top], np.float32)
        shared = np.array(
            [
                weights @ np.maximum.reduce([best[row], *(NEIGHBOUR_SHARE * best[other] for other in beside[row])])
                for row in top
            ],
            np.float32,
        )
        scores = (zscore(own) + zscore(shared)) / np.float32(2)
        part = np.full(len(episodes), scores.min(), np.float32)
        part[top] = scores
        return part

    def _rarity(self, ids: NDArray[np.int64]) -> Scores:
        """The weight of each word piece, float32 (q,), summing to 1: its IDF over the texts seen."""
        with self._lock:
            seen, frequency = self._seen, np.array([self._frequency[int(piece)] for piece in ids], np.float64)
        if seen < _MIN_TEXTS:
            return np.full(len(ids), 1 / len(ids), np.float32)
        idf = np.log1p((np.maximum(seen - frequency, 0) + 0.5) / (frequency + 0.5))
        weights: Scores = (idf / idf.sum()).astype(np.float32)
        return weights

    def _signs(self, episodes: Sequence[Episode]) -> list[Signs]:
        keys = [(episode.episode_id, hash(episode.content)) for episode in episodes]
        found: dict[tuple[str, int], Signs] = {}
        with self._lock:
            for key in keys:
                if key in self._texts:
                    self._texts.move_to_end(key)
                    found[key] = self._texts[key]
        missing = [row for row, key in enumerate(keys) if key not in found]
        if missing:
            encoded = self._encoder.token_vectors([episodes[row].content for row in missing], kind="document")
            with self._lock:
                for row, tokens in zip(missing, encoded, strict=True):
                    signs = Signs.of(tokens.vectors[1:-1])
                    found[keys[row]] = self._texts[keys[row]] = signs
                    self._frequency.update({int(piece) for piece in tokens.ids[1:-1]})
                    self._seen += 1
                while len(self._texts) > self._kept:
                    self._texts.popitem(last=False)
        return [found[key] for key in keys]


def _beside(episode: Episode, episodes: Sequence[Episode], around: Mapping[str, Sequence[str | None]]) -> list[int]:
    """Rows of the direct neighbours that are candidates and belong to the same stretch."""
    neighbours = around.get(episode.episode_id, ())
    middle = len(neighbours) // 2
    near = {name for name in neighbours[max(0, middle - 1) : middle + 1] if name is not None}
    if not near:
        return []
    return [
        row
        for row, other in enumerate(episodes)
        if other.episode_id in near
        and (
            other.timestamp is None or episode.timestamp is None or abs(other.timestamp - episode.timestamp) <= MAX_GAP
        )
    ]
