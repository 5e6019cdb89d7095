"""BM25 as sparse vectors, made on the client's side so that every vector store gives the same answers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ww_core.errors import ConfigurationError
from ww_core.stores.ports import SparseVector

K1 = 1.2  # saturation of term frequency
B = 0.75  # length normalisation, 0 none to 1 full
DEFAULT_AVERAGE_LENGTH = 16.0  # terms of one episode after stop words, until the store knows better
_STEP = 1.12  # average lengths are rounded to powers of this, so that vectors stay comparable while a store grows


class SparseEncoder:
    """Documents as BM25 term weights, queries as their terms; the store adds the IDF. Thread-safe.

    The weight of a term that occurs f times in a text of n terms (after stop words) is
    ``f (K1 + 1) / (f + K1 (1 - B + B n / average_length))``.
    """

    def __init__(self, language: str = "english", *, average_length: float = DEFAULT_AVERAGE_LENGTH) -> None:
        """Raises ConfigurationError for a language without stop words and stemmer."""
        self._language = language
        self._average_length = average_length
        _reader(language)

    def document(self, text: str, *, average_length: float | None = None) -> SparseVector:
        """``text`` as it is indexed; ``average_length`` (terms, above 0) is that of the collection it goes into."""
        ((vector,),) = self.documents([text], [average_length])
        return vector

    def documents(self, texts: Sequence[str], average_lengths: Sequence[float | None]) -> list[list[SparseVector]]:
        """For each text its ``document`` at each of the average lengths (None for the default): many at once take half
        the time, and each is read once."""
        found: list[list[SparseVector]] = []
        for together in _groups(texts):
            found += self._documents(together, average_lengths)
        return found

    def _documents(self, texts: Sequence[str], average_lengths: Sequence[float | None]) -> list[list[SparseVector]]:
        ends, indices, frequencies = self._counts(texts)
        sizes = np.diff(ends)
        lengths = np.bincount(np.repeat(np.arange(len(texts)), sizes), weights=frequencies, minlength=len(texts))
        weights = []
        for average in average_lengths:
            damped = K1 * (1 - B + B * lengths / _rounded(average or self._average_length))
            made = frequencies * (K1 + 1) / (frequencies + np.repeat(damped, sizes))
            weights.append(made.astype(np.float32))
        parts = [slice(start, end) for start, end in pairwise(ends.tolist())]
        return [[SparseVector(indices[part], made[part]) for made in weights] for part in parts]

    def query(self, text: str) -> SparseVector:
        """Each distinct term of ``text`` with weight 1; empty where it holds stop words only."""
        return _sparse(_reader(self._language).embed_query(text))

    def length(self, text: str) -> float:
        """Terms of ``text`` after stop words, repetitions counted: what ``average_length`` is the mean of."""
        return float(self._counts([text])[2].sum())

    def _counts(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.float64]]:
        """The distinct terms of the texts end to end, ascending within each, and how often each of them occurs there.

        The terms of text ``i`` are those from ``ends[i]`` to ``ends[i + 1]`` of the first array (n + 1,).
        """
        reader = _reader(self._language)
        terms: list[int] = []
        values: list[float] = []
        ends = [0]
        for text in texts:
            counted = reader.embed_document(text)
            terms += counted.indices
            values += counted.values
            ends.append(len(terms))
        weights = np.array(values, dtype=np.float64)
        # With b = 0 a term's weight depends on its frequency alone: w = f (k + 1) / (f + k), so f = w k / (k + 1 - w).
        frequencies = np.rint(weights * _COUNT_K / (_COUNT_K + 1 - weights))
        bounds, indices = np.array(ends), np.array(terms, dtype=np.uint32)
        order = np.lexsort((indices, np.repeat(np.arange(len(texts)), np.diff(bounds))))
        return bounds, indices[order], frequencies[order]


_COUNT_K = 1000.0
_TOGETHER_CHARS = 500_000
"""Of texts that are counted together: their terms are in memory several times over."""


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """The texts in order, in groups of about so many characters."""
    start = chars = 0
    for end, text in enumerate(texts, 1):
        chars += len(text)
        if chars >= _TOGETHER_CHARS or end == len(texts):
            yield texts[start:end]
            start, chars = end, 0


def _rounded(average_length: float) -> float:
    return round(_STEP ** round(math.log(max(1.0, average_length)) / math.log(_STEP)), 3)


@lru_cache(maxsize=16)
def _reader(language: str) -> Any:
    """Finds the terms of a text. Its own weights say how often a document has each: see ``_counts``."""
    import qdrant_edge

    try:
        return qdrant_edge.Bm25(qdrant_edge.Bm25Config(k=_COUNT_K, b=0.0, avg_len=1.0, language=language))
    except ValueError as error:
        raise ConfigurationError(
            f"no word list for the language {language!r}: {error}", hint="use its English name in lower case"
        ) from error


def _sparse(vector: Any) -> SparseVector:
    indices = np.asarray(vector.indices, dtype=np.uint32)
    order = np.argsort(indices, kind="stable")
    return SparseVector(indices[order], np.asarray(vector.values, dtype=np.float32)[order])


__all__ = ["DEFAULT_AVERAGE_LENGTH", "SparseEncoder"]
