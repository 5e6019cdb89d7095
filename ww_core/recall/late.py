"""Late interaction: the few best candidates are read again, word piece by word piece.

Each word piece of the query looks for its best match among the word pieces of an episode (MaxSim), and what it finds
counts by how rare the piece is. One vector for a whole text blurs what a single word decides; this does not.

Of an episode the signs of its token vectors are kept (ww_core.recall.pieces), by default with its point in the vector
store; the query's own vectors stay exact.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Episode, Vector
from ww_core.recall.context import within_gap
from ww_core.recall.fusion import Scores, zscore
from ww_core.recall.pieces import Signs, TokenEncoder, Tokens
from ww_core.recall.profile import Frequency

NEIGHBOUR_SHARE = 0.95
"""What a match in a direct neighbour's text is worth, next to one in the episode's own."""
_MIN_TEXTS = 50
"""Rarity is not judged by fewer texts than this: every word piece counts the same."""


def best_matches(query: Vector, texts: Sequence[Signs]) -> Scores:
    """For each text the best match of each word piece of the query, float32 (n, q).

    ``query`` float32 (q, h), unit rows. A text without word pieces matches nothing: -1.
    """
    best = np.full((len(texts), len(query)), -1.0, np.float32)
    rows = [row for row, text in enumerate(texts) if len(text.bits)]
    if rows:  # all at once: a hundred small products cost more than one large one
        bits = [texts[row].bits for row in rows]
        starts = np.cumsum([0, *(len(one) for one in bits[:-1])])
        similarity = Signs(np.concatenate(bits)).cosines(query)
        best[rows] = np.maximum.reduceat(similarity, starts, axis=0)
    return best


class LateInteraction:
    """Reads candidates again; keeps the token vectors of up to ``kept`` episodes in memory. Thread-safe.

    Others come from ``stored`` (``VectorStore.pieces``). What is not there either is encoded when a query needs it, at
    most ``candidates`` episodes and their direct neighbours: the first queries on such ground pay for it.
    """

    def __init__(
        self,
        encoder: TokenEncoder,
        *,
        candidates: int,
        kept: int,
        stored: Callable[[Sequence[str]], Mapping[str, bytes]] = lambda _: {},
    ) -> None:
        self._encoder = encoder
        self._stored = stored
        self._candidates = candidates
        self._kept = kept
        self._lock = threading.Lock()
        self._texts: OrderedDict[tuple[str, int], Signs] = OrderedDict()

    def forget(self) -> None:
        """Keep nothing in memory: some of it may have been erased."""
        with self._lock:
            self._texts.clear()

    def part(
        self,
        query: Tokens,
        episodes: Sequence[Episode],
        total: Scores,
        around: Mapping[str, Sequence[str | None]],
        frequency: Frequency,
    ) -> Scores:
        """Normalised scores of ``episodes`` by late interaction, float32 (n,).

        Only the best by ``total`` (n,) are read, word pieces against those of ``query``; the others score like the
        worst of them. ``around`` as ``GraphStore.around`` gives it; neighbours count where they are candidates
        themselves.
        ``frequency`` says how rare a word piece is.
        """
        top = np.argsort(-total, kind="stable")[: self._candidates].tolist()
        ids, vectors = query.ids[1:-1], query.vectors[1:-1]
        if len(top) < 2 or not len(ids):
            return np.zeros(len(episodes), np.float32)
        rows_of = {episode.episode_id: row for row, episode in enumerate(episodes)}
        beside = {row: _beside(row, episodes, rows_of, around) for row in top}
        rows = sorted({*top, *(other for others in beside.values() for other in others)})
        texts = self._signs([episodes[row] for row in rows])
        weights = rarity(ids, frequency)
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
            kept = self._stored([episodes[row].episode_id for row in missing])
            for row in missing:
                episode = episodes[row]
                signs = Signs.unpack(kept.get(episode.episode_id, b""), episode.content)
                if signs is not None:
                    found[keys[row]] = signs
            unread = [row for row in missing if keys[row] not in found]
            if unread:
                encoded = self._encoder.token_vectors([episodes[row].content for row in unread], kind="document")
                found |= {keys[row]: Signs.of(t.vectors[1:-1]) for row, t in zip(unread, encoded, strict=True)}
            with self._lock:
                self._texts.update((keys[row], found[keys[row]]) for row in missing)
                while len(self._texts) > self._kept:
                    self._texts.popitem(last=False)
        return [found[key] for key in keys]


def rarity(ids: NDArray[np.int64], frequency: Frequency) -> Scores:
    """The weight of each word piece, float32 (q,), summing to 1: its IDF over the texts counted."""
    if frequency.texts < _MIN_TEXTS:
        return np.full(len(ids), 1 / len(ids), np.float32)
    having = np.array([frequency.having.get(int(piece), 0) for piece in ids], np.float64)
    idf = np.log1p((frequency.texts - having + 0.5) / (having + 0.5))
    weights: Scores = (idf / idf.sum()).astype(np.float32)
    return weights


def _beside(
    row: int, episodes: Sequence[Episode], rows_of: Mapping[str, int], around: Mapping[str, Sequence[str | None]]
) -> list[int]:
    """Rows of the direct neighbours that are candidates and belong to the same stretch."""
    episode = episodes[row]
    neighbours = around.get(episode.episode_id, ())
    middle = len(neighbours) // 2
    beside = (rows_of.get(name) for name in neighbours[max(0, middle - 1) : middle + 1] if name is not None)
    return [other for other in beside if other is not None and within_gap(episode, episodes[other])]
