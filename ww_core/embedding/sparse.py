"""BM25 as sparse vectors, made on the client's side so that every vector store gives the same answers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ww_core.errors import ConfigurationError
from ww_core.stores.ports import SparseVector

K1 = 1.2  # saturation of term frequency
B = 0.75  # length normalisation, 0 none to 1 full
DEFAULT_AVERAGE_LENGTH = 16.0  # terms of one episode after stop words, until the store knows better
_STEP = 1.12  # average lengths are rounded to powers of this, so that few models are built and vectors stay comparable


class SparseEncoder:
    """Documents as BM25 term weights, queries as their terms; the store adds the IDF. Thread-safe.

    The weight of a term that occurs f times in a text of n terms (after stop words) is
    ``f (K1 + 1) / (f + K1 (1 - B + B n / average_length))``.
    """

    def __init__(self, language: str = "english", *, average_length: float = DEFAULT_AVERAGE_LENGTH) -> None:
        """Raises ConfigurationError for a language without stop words and stemmer."""
        self._language = language
        self._average_length = average_length
        _model(language, _rounded(average_length))

    def document(self, text: str, *, average_length: float | None = None) -> SparseVector:
        """``text`` as it is indexed; ``average_length`` (terms, above 0) is that of the collection it goes into."""
        model = _model(self._language, _rounded(average_length or self._average_length))
        return _sparse(model.embed_document(text))

    def query(self, text: str) -> SparseVector:
        """Each distinct term of ``text`` with weight 1; empty where it holds stop words only."""
        return _sparse(_model(self._language, _rounded(self._average_length)).embed_query(text))

    def length(self, text: str) -> float:
        """Terms of ``text`` after stop words, repetitions counted: what ``average_length`` is the mean of."""
        # With b = 0 a term's weight depends on its frequency alone: w = f (k + 1) / (f + k), so f = w k / (k + 1 - w).
        weights = np.asarray(_counter(self._language).embed_document(text).values, dtype=np.float64)
        return float(np.rint(weights * _COUNT_K / (_COUNT_K + 1 - weights)).sum())


_COUNT_K = 1000.0


def _rounded(average_length: float) -> float:
    return round(float(_STEP ** np.rint(np.log(max(1.0, average_length)) / np.log(_STEP))), 3)


@lru_cache(maxsize=256)
def _model(language: str, average_length: float, k: float = K1, b: float = B) -> Any:
    import qdrant_edge

    try:
        return qdrant_edge.Bm25(qdrant_edge.Bm25Config(k=k, b=b, avg_len=average_length, language=language))
    except ValueError as error:
        raise ConfigurationError(
            f"no word list for the language {language!r}: {error}", hint="use its English name in lower case"
        ) from error


def _counter(language: str) -> Any:
    return _model(language, 256.0, _COUNT_K, 0.0)


def _sparse(vector: Any) -> SparseVector:
    indices = np.asarray(vector.indices, dtype=np.uint32)
    order = np.argsort(indices, kind="stable")
    return SparseVector(indices[order], np.asarray(vector.values, dtype=np.float32)[order])


__all__ = ["DEFAULT_AVERAGE_LENGTH", "SparseEncoder"]
