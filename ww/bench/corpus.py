"""A memory of any size from real text: an episode is a real one with noise on its vector and some words changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ww.bench import data, locomo
from ww.bench.figure import Bench
from ww.bench.spread import Spread, noisy
from ww_core.embedding.encoder import Kind, TokenVectors
from ww_core.models import Vector
from ww_core.stores.ports import Fingerprint

NOISE = 0.5
"""Length of the noise beside a vector of length 1: two copies of one text have a cosine of 0.8, as paraphrases have."""
STRETCH = 8
"""Episodes in a row that come from texts that stand together: neighbours are alike, as in a conversation."""
KEPT_WORDS = 0.7
"""Share of a text's words that stay; the others are replaced by words of another text."""
BLOCK = 5000
"""Episodes that are made at once: what their noise and words are depends on the block and the seed alone."""
MADE_UP = 5000
"""Texts where no real ones are wanted."""


def texts(most: int) -> list[str]:
    """Up to ``most`` real texts: of the labelled data sets where they are at hand, and the demo's."""
    from ww.cli import demo_text

    found: list[str] = []
    if not data.absent(data.BANKING):
        found += data.banking().texts
    if not data.absent(data.CLINC):
        found += data.clinc().texts
    if not data.absent(locomo.FILE):
        found += [e.content for c in locomo.load(data.folder() / locomo.FILE) for e in c.episodes]
    found += [episode.content for episode in demo_text.episodes()]
    # blocks of neighbours from everywhere, not only the first of one set
    step = max(1, len(found) // max(most, 1))
    chosen = [text for low in range(0, len(found), STRETCH * step) for text in found[low : low + STRETCH]]
    return chosen[:most]


@dataclass(frozen=True, slots=True)
class Corpus:
    """``size`` episodes over ``real`` texts with unit vectors ``base`` float32 (r, d), and ``queries`` (q, d).

    The same seed makes the same episodes; their vectors are made block by block and never held by it.
    """

    size: int
    real: Sequence[str]
    base: Vector
    source: NDArray[np.int64]
    """The real text of each episode, (size,)."""
    queries: Vector
    asked: tuple[str, ...]
    """The queries as text."""
    seed: int

    @classmethod
    def of(cls, size: int, queries: int, real: Sequence[str], base: Vector, *, seed: int = 7) -> Corpus:
        """Stretches of neighbouring texts in random order, and queries that are near some of them."""
        rng = np.random.default_rng(seed)
        starts = rng.integers(0, max(1, len(real) - STRETCH), -(-size // STRETCH))
        source = (starts[:, None] + np.arange(STRETCH)).reshape(-1)[:size] % len(real)
        wanted = rng.integers(0, len(real), queries)
        asked = tuple(f"{_mixed(real, int(j), rng)} {i}" for i, j in enumerate(wanted))
        return cls(size, real, base, source, noisy(rng, base[wanted], NOISE), asked, seed)

    def name(self, i: int) -> str:
        """The id of an episode."""
        return f"e{i:07}"

    def rows(self, low: int, high: int) -> Vector:
        """Unit vectors of the episodes from ``low`` to before ``high``, float32 (high - low, d)."""
        return np.concatenate([self._rows(first)[a - first : b - first] for first, a, b in self._blocks(low, high)])

    def words(self, low: int, high: int) -> list[str]:
        """The texts of the episodes."""
        return [text for first, a, b in self._blocks(low, high) for text in self._words(first)[a - first : b - first]]

    def parts(self, low: int = 0, high: int | None = None) -> list[tuple[int, int]]:
        """Bounds of the stretches in which the episodes from ``low`` to before ``high`` are best made and written."""
        return [(a, b) for _, a, b in self._blocks(low, self.size if high is None else high)]

    def _blocks(self, low: int, high: int) -> list[tuple[int, int, int]]:
        """Where each block begins that has some of the episodes, and the bounds of those in it."""
        firsts = range(low - low % BLOCK, high, BLOCK)
        return [(first, max(low, first), min(high, first + BLOCK)) for first in firsts]

    def _rows(self, first: int) -> Vector:
        rng = np.random.default_rng((self.seed, first))
        return noisy(rng, self.base[self.source[first : first + BLOCK]], NOISE)

    def _words(self, first: int) -> list[str]:
        rng = np.random.default_rng((self.seed, first, 1))
        numbers = range(first, min(first + BLOCK, self.size))
        return [f"{_mixed(self.real, int(self.source[i]), rng)} {i}" for i in numbers]

    def exact(self, k: int) -> list[list[str]]:
        """The true ``k`` nearest of every query by a scan over everything, nearest first."""
        best: list[list[tuple[float, int]]] = [[] for _ in self.queries]
        for low, high in self.parts():
            similarity = self.rows(low, high) @ self.queries.T
            top = np.argpartition(-similarity, min(k, high - low - 1), axis=0)[:k]
            for q, found in enumerate(best):
                found += [(float(similarity[i, q]), low + int(i)) for i in top[:, q]]
        return [[self.name(i) for _, i in sorted(found, key=lambda row: (-row[0], row[1]))[:k]] for found in best]


def drawn(bench: Bench, size: int) -> Corpus:
    """A corpus over real texts, which are embedded for it."""
    from ww_core.embedding import EmbeddingService

    real = texts(min(size // 4, 8000))
    bench.say(f"  embedding {len(real):,} real texts")
    service = EmbeddingService(bench.settings)
    try:
        base = service.encode(real)
    finally:
        service.close()
    return Corpus.of(size, bench.scale.queries, real, base)


def made_up(size: int, queries: int) -> Corpus:
    """A corpus that needs no model: random vectors around topics, each with a text of its own."""
    real = [f"subject{k} about topic{k % 97}" for k in range(MADE_UP)]
    return Corpus.of(size, queries, real, Spread(MADE_UP).matrix)


def fingerprint(dimension: int) -> Fingerprint:
    """Of vectors that no model made."""
    return Fingerprint("bench", "1", dimension, "none", True)


class ByNumber:
    """An encoder whose queries end in a row's number: what is measured is recall, as with a cached query."""

    def __init__(self, queries: Vector) -> None:
        self._queries = queries
        self.fingerprint = fingerprint(queries.shape[1])

    def encode_query(self, text: str) -> Vector:
        row: Vector = self._queries[int(text.split()[-1])]
        return row

    def encode_query_with_tokens(self, text: str) -> tuple[Vector, TokenVectors]:
        """The text as one word piece."""
        row = self.encode_query(text)
        return row, TokenVectors(np.zeros(1, np.int64), row[None])

    def encode(self, texts: Sequence[str]) -> Vector:
        return np.stack([self.encode_query(text) for text in texts])

    def word_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """None."""
        return [[] for _ in texts]

    def token_vectors(self, texts: Sequence[str], *, kind: Kind = "document") -> list[TokenVectors]:
        """Each text as one word piece."""
        return [self.encode_query_with_tokens(text)[1] for text in texts]


def _mixed(real: Sequence[str], j: int, rng: np.random.Generator) -> str:
    """The text with some of its words from another one."""
    own = re.findall(r"\S+", real[j])
    other = re.findall(r"\S+", real[int(rng.integers(len(real)))])
    stays = rng.random(len(own)) < KEPT_WORDS
    words = zip(own, stays, strict=True)
    return " ".join(word if stay else other[i % len(other)] for i, (word, stay) in enumerate(words))
