"""Finding candidates: what each signal of a query proposes, and what the others say of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from ww_core.models import Vector
from ww_core.recall.candidates import Pool, gather
from ww_core.recall.fusion import fuse
from ww_core.recall.pieces import Tokens
from ww_core.recall.profile import Frequency
from ww_core.recall.query import QueryReading
from ww_core.recall.weights import proposing
from ww_core.stores.ports import CONTENT, DENSE_NAMES, SPARSE_NAMES, Hit, Search, SparseVector, VectorStore, Where

OF_A_DAY = 16
"""Candidates that each day proposes which the query names."""
MANY = 5000
"""Points in question, in all clusters, from which signals of little weight do not look for candidates themselves."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query ready to be searched: ``dense`` (d,) is None where no model answered in time."""

    reading: QueryReading
    dense: Vector | None
    sparse: SparseVector
    weights: Mapping[str, float]
    coherent: bool
    frequency: Frequency
    tokens: Tokens | None = None
    """Its word pieces, where late interaction is on and the model is here."""
    spans: Sequence[tuple[datetime, datetime]] = ()
    """The days that it names, from the first moment to the one after the last."""


class Finder:
    """Asks one vector store. Each signal proposes ``candidates``, of which the ``best`` by their sum are kept."""

    def __init__(self, vectors: VectorStore, *, candidates: int, best: int) -> None:
        self._vectors = vectors
        self._candidates = candidates
        self._best = best

    def find(self, query: Query, where: Where, words: Where, depth: int) -> Pool:
        """What each signal finds: meaning in ``where``, words in ``words``, which no clusters narrow.

        A term leads to its episodes by itself, wherever their clusters are, and most of them lie in other clusters.
        ``depth``: of the results that are asked for.
        """
        limit = max(self._candidates, depth)
        vectors: dict[str, Vector | SparseVector] = {}
        weights = query.weights
        if query.dense is not None:
            vectors.update({name: query.dense for name in DENSE_NAMES if weights.get(name)})
        if query.sparse.indices.size:
            vectors.update({name: query.sparse for name in SPARSE_NAMES if weights.get(name)})
        if not vectors:
            return Pool(ids=(), scores={})
        named = proposing(vectors, weights)
        if len(named) < len(vectors) and self._vectors.count(words, exact=False) < MANY:
            named = list(vectors)
        found = self._vectors.search(
            [Search(n, vectors[n], words if n in SPARSE_NAMES else where, limit) for n in named]
        )
        hits = dict(zip(named, found, strict=True))
        pool = gather(hits, limit=limit)
        best = max(self._best, depth)
        if len(pool.ids) > best:
            total = fuse(pool.scores, {}, weights, size=len(pool.ids)).total
            pool = pool.take(np.argsort(-total, kind="stable")[:best].tolist())
        if query.dense is not None and query.spans:
            pool = pool.joined(self._of_days(query.dense, query.spans, words))
        # what a signal lists is all there is of it where it was less than asked for, and clusters left nothing out
        whole = {n for n, listed in hits.items() if len(listed) < limit and (n in SPARSE_NAMES or not where.cells)}
        return self._completed(pool, hits, vectors, whole, words.archived)

    def _of_days(self, dense: Vector, spans: Sequence[tuple[datetime, datetime]], where: Where) -> list[str]:
        """What lies nearest in meaning among the episodes of each day."""
        searches = []
        for start, end in spans:
            since = start if where.since is None else max(start, where.since)
            until = end if where.until is None else min(end, where.until)
            if since < until:
                searches.append(Search(CONTENT, dense, replace(where, since=since, until=until), OF_A_DAY))
        return [hit.episode_id for hits in self._vectors.search(searches) for hit in hits] if searches else []

    def _completed(
        self,
        pool: Pool,
        hits: Mapping[str, Sequence[Hit]],
        vectors: Mapping[str, Vector | SparseVector],
        whole: Collection[str],
        archived: bool | None,
    ) -> Pool:
        """The pool with the scores of candidates that a signal did not list, but for the signals listed ``whole``."""
        asked = {}
        for name in vectors:
            seen = {hit.episode_id for hit in hits.get(name, ())}
            left = tuple(episode_id for episode_id in pool.ids if episode_id not in seen)
            if left and name not in whole:
                asked[name] = left
        if not asked:
            return pool
        searches = [  # a light signal proposed nothing, and its scores need not be exact
            Search(n, vectors[n], Where(episode_ids=ids, archived=archived), limit=len(ids), exact=n in hits)
            for n, ids in asked.items()
        ]
        return pool.completed(asked, dict(zip(asked, self._vectors.search(searches), strict=True)))
