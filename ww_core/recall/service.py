"""Recall: from a query to the episodes that answer it, each with the parts of its score."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from ww_core.config import Settings
from ww_core.embedding.errors import EncodingFailed
from ww_core.embedding.sparse import SparseEncoder
from ww_core.errors import InvalidInput, ModelUnavailable
from ww_core.hooks import Hooks
from ww_core.models import ClusterRef, Episode, Recall, Recollection, State
from ww_core.observability.metrics import Metrics
from ww_core.observability.summary import GAP
from ww_core.recall import rerank, signals
from ww_core.recall.answer import whole
from ww_core.recall.candidates import Pool
from ww_core.recall.filters import findable, matches
from ww_core.recall.finding import Finder, Query
from ww_core.recall.fusion import Fused, Scores, fuse
from ww_core.recall.hierarchy import Gap, Route, Router, within
from ww_core.recall.labels import Labels
from ww_core.recall.late import LateInteraction
from ww_core.recall.pieces import TokenEncoder
from ww_core.recall.profile import Profiles
from ww_core.recall.query import read_query
from ww_core.recall.recent import RecentEpisodes, RecentVectors, TextEncoder, cosines, on_scale, overlap
from ww_core.recall.request import MAX_LIMIT, RecallRequest
from ww_core.recall.weights import LATE, NEIGHBOURS, Weights
from ww_core.stores.ports import (
    BM25,
    BM25_CONTEXT,
    CONTENT,
    SPARSE_NAMES,
    GraphStore,
    VectorStore,
    Where,
)

log = logging.getLogger(__name__)

FLAT, HIERARCHICAL, LEXICAL = "flat", "hierarchical", "bm25"


class RecallEncoder(TextEncoder, TokenEncoder, Protocol):
    """The embedding service as recall uses it."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Candidates best first: ``order`` holds rows of ``episodes`` and of the parts."""

    order: list[int]
    episodes: list[Episode]
    fused: Fused
    mode: str


class Recaller:
    """Answers queries from one deployment's stores. Thread-safe.

    ``ca1`` holds what this process stored and has not seen embedded; None for processes that store nothing. ``clock``
    tells the time (UTC) that recency is measured against; ``chance`` draws the queries whose gap is measured.
    """

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        embedding: RecallEncoder,
        settings: Settings,
        hooks: Hooks,
        metrics: Metrics,
        ca1: RecentEpisodes | None = None,
        *,
        sparse: SparseEncoder | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._embedding = embedding
        self._settings = settings
        self._hooks = hooks
        self._metrics = metrics
        self._ca1 = ca1
        self._sparse = sparse or SparseEncoder()
        self._clock = clock
        self._chance = chance
        self._weights = Weights.of(settings)
        kept = max(settings.rerank_candidates, settings.late_interaction_candidates if self._weights.parts[LATE] else 0)
        self._finder = Finder(vectors, candidates=settings.recall_candidates, best=kept)
        self._router = Router(graph, vectors)
        self._labels = Labels(graph)
        self._profiles = Profiles(graph, vectors, pieces=embedding.word_pieces if self._weights.parts[LATE] else None)
        self._recent = RecentVectors()
        self._late = LateInteraction(
            embedding,
            candidates=settings.late_interaction_candidates,
            kept=settings.late_interaction_kept,
            stored=vectors.pieces,
        )
        self.gap = Gap()

    def recall(self, request: RecallRequest) -> Recall:
        """The best ``limit`` episodes of ``request.where``, best first.

        Raises InvalidInput for an empty query or a limit out of range, StoreUnavailable where a store does not answer.
        A model that cannot be reached is no error: the answer then rests on words alone and its mode says ``bm25``.
        """
        start = time.perf_counter()
        request = self._hooks.apply("before_recall", _checked(request), valid=_checked)
        with self._metrics.timer("recall.embed"):
            query = self._read(request)
        ranked = self._answer(query, request)
        with self._metrics.timer("recall.rerank"):
            rows = self._select(query, ranked, request)
        results = self._results(ranked, rows, request)
        if not results:
            self._tell_of_lost_vectors()
        took_ms = (time.perf_counter() - start) * 1000
        answer = Recall(query=request.query, mode=ranked.mode, took_ms=took_ms, results=results)
        return self._hooks.apply("after_recall", answer, valid=whole)

    def forget(self) -> None:
        """Keep no text and no vector of episodes: some were erased."""
        self._recent.forget()
        self._late.forget()
        self._profiles.forget()

    # -- the query

    def _read(self, request: RecallRequest) -> Query:
        profile = self._profiles.of(request.where.sessions, time.monotonic())
        reading = read_query(request.query, profile.speakers)
        dense, tokens = None, None
        if self._weights.dense:
            try:
                if self._weights.parts[LATE]:
                    dense, tokens = self._embedding.encode_query_with_tokens(reading.topic)
                else:
                    dense = self._embedding.encode_query(reading.topic)
            except ModelUnavailable as error:
                self._metrics.increment("recall.without_model")
                log.warning("recall without the model: %s", error, extra={"action": "recall.without_model"})
        weights = self._weights.effective(
            coherence=profile.coherence,
            lexical=dense is None,
            read=tokens is not None,
            of_a_day=bool(reading.days),
        )
        words = self._sparse.query(reading.topic)
        return Query(
            reading=reading,
            dense=dense,
            sparse=words,
            weights=weights,
            coherent=profile.coherence > 0,
            frequency=profile.frequency,
            tokens=tokens,
            spans=reading.spans(self._clock()) if weights["date"] else (),
        )

    def _tell_of_lost_vectors(self) -> None:
        if self._vectors.count(exact=False) == 0 and (embedded := self._graph.counts().embedded):
            log.error(
                "there are no vectors of %d embedded episodes: ww verify --repair has them made again",
                embedded,
                extra={"action": "recall.without_vectors"},
            )

    # -- flat or by clusters

    def _answer(self, query: Query, request: RecallRequest) -> _Ranked:
        if query.dense is None:
            return self._rank(query, request, request.where, LEXICAL, None)
        route = self._route(request)
        measured = self._chance() < self._settings.hierarchical_gap_sample
        routed = route is not None and not request.where.cells and self._pays(route, request, measured)
        if route is None or not routed:
            return self._rank(query, request, request.where, FLAT, route)
        cells = route.nearest(query.dense, self._settings.cluster_selection_k)
        ranked = self._rank(query, request, within(request.where, cells), HIERARCHICAL, route)
        if measured:
            flat = self._rank(query, request, request.where, FLAT, route)
            self.gap.measure(_top(ranked, request), _top(flat, request))
            self._metrics.set_gauge(GAP, self.gap.value)
            if self._mode(request) == "auto" and self.gap.exceeds(self._settings.hierarchical_gap_limit):
                return flat
        return ranked

    def _mode(self, request: RecallRequest) -> str:
        if request.mode is not None:
            return request.mode
        setting = self._settings.hierarchical_search
        return "auto" if setting == "auto" else HIERARCHICAL if setting else FLAT

    def _route(self, request: RecallRequest) -> Route | None:
        if self._mode(request) == FLAT and not self._weights.parts["cluster"]:
            return None
        return self._router.route(self._graph.current_attempts(request.where.sessions))

    def _pays(self, route: Route, request: RecallRequest, measured: bool) -> bool:
        mode = self._mode(request)
        if mode != "auto":
            return mode == HIERARCHICAL
        settings = self._settings
        if len(route.cells) <= 2 * settings.cluster_selection_k:
            return False
        if self._vectors.count(request.where, exact=False) < settings.hierarchical_min_episodes:
            return False
        # a gap that grew is measured on: the sampled queries still run both ways, and answer flat
        return measured or not self.gap.exceeds(settings.hierarchical_gap_limit)

    # -- candidates and fusion

    def _rank(self, query: Query, request: RecallRequest, where: Where, mode: str, route: Route | None) -> _Ranked:
        depth = request.offset + request.limit
        fresh = self._fresh(request.where)  # read before the search: what is embedded by then, the search finds
        with self._metrics.timer("recall.search"):
            pool = self._finder.find(query, where, request.where, depth)
        with self._metrics.timer("recall.fusion"):
            pool, episodes = self._recorded(query, pool, fresh, request.where)
            known: dict[str, Scores] = {}
            searched = dict(pool.scores)
            weights = query.weights
            if query.reading.speakers and weights.get("speaker"):
                searched["speaker"] = signals.speaker(episodes, query.reading)
            if query.reading.dated and weights.get("date"):
                searched["date"] = signals.date(episodes, query.reading)
            if query.reading.exact and weights.get("named"):
                known["named"] = signals.named(episodes, query.reading)
            if weights.get("recency"):
                known["recency"] = signals.recency(episodes, self._clock())
            if weights.get("outcome"):
                known["outcome"] = signals.outcome(episodes)
            if weights.get("importance"):
                known["importance"] = signals.importance(episodes)
            if weights.get("cluster") and route is not None and query.dense is not None:
                known["cluster"] = signals.cluster(episodes, route.affinities(query.dense))
            fused = fuse(searched, known, weights, size=len(pool.ids))
            fused = self._reread(query, fused, episodes)
        order = sorted(range(len(episodes)), key=lambda row: (-float(fused.total[row]), episodes[row].episode_id))
        return _Ranked(order=order, episodes=episodes, fused=fused, mode=mode)

    def _fresh(self, where: Where) -> list[Episode]:
        """What this process stored a moment ago and is not embedded yet, as the record has it now."""
        recent = self._ca1.episodes() if self._ca1 is not None else ()
        if self._ca1 is None or not recent:
            return []
        rows = self._graph.get([episode.episode_id for episode in recent])
        waiting = (State.PENDING, State.LEASED)
        fresh = [row for e in recent if (row := rows.get(e.episode_id)) is not None and row.state in waiting]
        self._ca1.discard({e.episode_id for e in recent} - {row.episode_id for row in fresh})
        return [row for row in fresh if matches(row, where)]

    def _recorded(self, query: Query, pool: Pool, fresh: list[Episode], where: Where) -> tuple[Pool, list[Episode]]:
        """The candidates that the record still has in ``where``; fresh ones by their text, as any points are older."""
        rows = self._graph.get(pool.ids)
        apart = {episode.episode_id for episode in fresh}
        kept = [
            row
            for row, episode_id in enumerate(pool.ids)
            if (episode := rows.get(episode_id)) is not None
            and episode_id not in apart
            and findable(episode)
            and matches(episode, where)
        ]
        pool = pool.take(kept)
        return self._joined(query, pool, fresh), [*(rows[episode_id] for episode_id in pool.ids), *fresh]

    def _joined(self, query: Query, pool: Pool, fresh: list[Episode]) -> Pool:
        """The pool and episodes without vectors, scored by their words and, a few at a time, by their meaning."""
        if not fresh:
            return pool
        texts = [episode.content for episode in fresh]
        share = overlap(query.sparse, [vector for (vector,) in self._sparse.documents(texts, [None])])
        similarity = np.full(len(fresh), np.nan, np.float32)
        if query.dense is not None:
            try:
                similarity = cosines(query.dense, fresh, self._recent.of(fresh, self._embedding))
            except ModelUnavailable:
                log.debug("recent episodes are compared by words", extra={"action": "recall.without_model"})
        names = pool.scores.keys() or ({CONTENT} if query.dense is not None else {BM25, BM25_CONTEXT})
        scores: dict[str, Scores] = {}
        for name in names:
            stored = pool.scores.get(name, np.zeros(0, np.float32))
            by_words = on_scale(share, stored, from_zero=name in SPARSE_NAMES)
            added = by_words if name in SPARSE_NAMES else np.where(np.isnan(similarity), by_words, similarity)
            scores[name] = np.concatenate([stored, added.astype(np.float32)])
        return Pool(ids=(*pool.ids, *(episode.episode_id for episode in fresh)), scores=scores)

    def _reread(self, query: Query, fused: Fused, episodes: list[Episode]) -> Fused:
        """The candidates looked at together: word by word where that is on, and with their neighbours."""
        weights = query.weights
        if not episodes or not (weights[NEIGHBOURS] or weights[LATE]):
            return fused
        around = self._graph.around(rerank.accompanied(episodes), reach=len(rerank.NEIGHBOUR_STEPS))
        if weights[LATE] and query.tokens is not None:
            try:
                near = around if query.coherent else {}
                late = self._late.part(query.tokens, episodes, fused.total, near, query.frequency)
                fused = fused.plus(LATE, np.float32(weights[LATE]) * late)
            except (ModelUnavailable, EncodingFailed):
                log.debug("no late interaction without a model", extra={"action": "recall.without_model"})
        if weights[NEIGHBOURS]:
            boost = rerank.neighbour_boost(fused.total, episodes, around)
            fused = fused.plus(NEIGHBOURS, np.float32(weights[NEIGHBOURS]) * boost)
        return fused

    # -- from candidates to results

    def _select(self, query: Query, ranked: _Ranked, request: RecallRequest) -> list[int]:
        depth = request.offset + request.limit
        rows = rerank.fold(ranked.order, ranked.episodes, most=depth if request.mmr is None else None)
        if request.mmr is not None:
            stored = self._vectors.vectors([ranked.episodes[row].episode_id for row in rows])
            by_id = {vector.episode_id: vector.vector for vector in stored}
            vectors = {row: by_id[e.episode_id] for row in rows if (e := ranked.episodes[row]).episode_id in by_id}
            rows = rerank.maximal_marginal_relevance(rows, ranked.fused.total, vectors, trade=request.mmr, limit=depth)
        return rows[request.offset : depth]

    def _results(self, ranked: _Ranked, rows: Sequence[int], request: RecallRequest) -> tuple[Recollection, ...]:
        episodes = [ranked.episodes[row] for row in rows]
        labels = self._labels.of(episodes)
        folds = self._graph.folds([_head(episode) for episode in episodes])
        parts = ranked.fused.parts
        results = []
        for row, episode in zip(rows, episodes, strict=True):
            cluster_id = episode.cluster_id
            components = {n: float(v[row]) for n, v in parts.items() if request.explain or v[row] != 0}
            results.append(
                Recollection(
                    episode_id=episode.episode_id,
                    content=episode.content,
                    score=float(ranked.fused.total[row]),
                    components=components,
                    session_id=episode.session_id,
                    timestamp=episode.timestamp or self._clock(),
                    context=episode.context,
                    outcome=episode.outcome,
                    cluster=ClusterRef(cluster_id, labels.get(cluster_id, cluster_id)) if cluster_id else None,
                    fold=folds.get(_head(episode)),
                )
            )
        return tuple(results)


def _head(episode: Episode) -> str:
    """What the episode was folded into, itself where that is nothing."""
    return episode.duplicate_of or episode.episode_id


def _top(ranked: _Ranked, request: RecallRequest) -> list[str]:
    return [ranked.episodes[row].episode_id for row in ranked.order[: request.offset + request.limit]]


def _checked(request: RecallRequest) -> RecallRequest:
    query = request.query.strip()
    if not query:
        raise InvalidInput("the query is empty", hint="say what to look for")
    if not isinstance(request.where, Where):
        raise InvalidInput(f"where is of type {type(request.where).__name__}, not Where")
    if isinstance(request.limit, bool) or not 1 <= request.limit <= MAX_LIMIT:
        raise InvalidInput(f"limit is {request.limit}; it must be between 1 and {MAX_LIMIT}")
    if request.offset < 0:
        raise InvalidInput(f"offset is {request.offset}; it must be 0 or more")
    if request.mmr is not None and not 0 <= request.mmr <= 1:
        raise InvalidInput(f"mmr is {request.mmr}; it must be between 0 (variety) and 1 (relevance)")
    return replace(request, query=query) if query != request.query else request
