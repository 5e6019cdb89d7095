"""The peer of every search: a scan of all vectors with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ww.bench.corpus import Corpus
from ww_core.models import Vector
from ww_core.stores.ports import DENSE_NAMES, Hit, Search, VectorStore


class ExactScan:
    """All rows of a corpus, float32, in memory."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._matrix = corpus.rows(0, corpus.size)

    def nearest(self, query: Vector, k: int) -> list[Hit]:
        """The ``k`` most similar to ``query`` (d,), best first."""
        similarity = self._matrix @ query
        best = np.argpartition(-similarity, k)[:k]
        best = best[np.argsort(-similarity[best])]
        return [Hit(self._corpus.name(int(row)), 0, float(similarity[row])) for row in best]


class ScannedStore:
    """A vector store whose candidates by meaning come from an exact scan; all else is the store's own.

    The scan knows no filter: the corpus is one session, and nothing of it is archived.
    """

    def __init__(self, store: VectorStore, scan: ExactScan) -> None:
        self._store = store
        self._scan = scan

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """See VectorStore."""
        own = iter(self._store.search([search for search in searches if not _scanned(search)]))
        return [
            self._scan.nearest(np.asarray(search.vector), search.limit) if _scanned(search) else next(own)
            for search in searches
        ]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _scanned(search: Search) -> bool:
    """Whether it asks for candidates by meaning, among all that there is."""
    return search.using in DENSE_NAMES and not search.where.episode_ids
