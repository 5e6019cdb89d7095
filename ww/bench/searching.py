"""Recall with a cached query, and search by clusters, beside an exact scan with numpy over the same rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np

from ww.bench.apart import aside, most_resident
from ww.bench.corpus import Corpus, drawn
from ww.bench.exact import ExactScan, ScannedStore
from ww.bench.figure import DENSE_ONLY, Bench, Figure, Scale, p95, skipped
from ww.bench.filled import SESSION, consolidate, filled, recaller
from ww.bench.kept import kept, lacking
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.models import Run
from ww_core.recall.hierarchy import Router
from ww_core.recall.request import Mode, RecallRequest
from ww_core.recall.service import Recaller
from ww_core.stores.ports import CONTENT, Search, VectorStore, Where

K = 10
SELECTED = 3
"""Clusters searched: ``cluster_selection_k``."""
P95_TARGET, MILLION_TARGET = 20.0, 50.0
SPEED_TARGET = 5.0
RECALL_TARGET = 0.95
SCANNED_TARGET = 0.25
MILLION = 1_000_000
MEMORY_TARGET = 12.0
"""GiB."""


def run(bench: Bench) -> Iterator[Figure]:
    """At 10 000 episodes; at full scale 100 000, and a million where there is memory for it."""
    corpus = drawn(bench, bench.scale.searched)
    with filled(corpus, bench, "recall") as deployment:
        made = consolidate(deployment)
        yield from _latency(corpus, deployment, bench.scale)
        yield from _by_clusters(corpus, deployment, made, bench)
    yield from _million(bench, corpus)


def _latency(corpus: Corpus, deployment: Deployment, scale: Scale) -> list[Figure]:
    everything = recaller(deployment, corpus.queries)
    scanned, _ = _timed(_scan(corpus, ExactScan(corpus)), range(len(corpus.queries)))
    figures = []
    modes: tuple[tuple[Mode, str], ...] = (("flat", "recall_p95"), ("auto", "recall_auto_p95"))
    for mode, name in modes:
        seconds, _ = _timed(ask(everything, corpus, mode), range(len(corpus.queries)))
        figures.append(
            Figure(name, p95(seconds), "ms", P95_TARGET, p95(scanned), "an exact scan with numpy", low_is_good=True,
                   note=f"{corpus.size:,} episodes, cached query, all parts, {mode}",
                   unjudged=scale.at_full("100 000 episodes"))
        )  # fmt: skip
    return figures


def _by_clusters(corpus: Corpus, deployment: Deployment, made: Run, bench: Bench) -> Iterator[Figure]:
    """What searching by clusters finds, and what it saves: of the search, and of the whole recall around it."""
    n, size = range(len(corpus.queries)), f"{corpus.size:,} episodes"
    dense = recaller(deployment, corpus.queries, cluster_selection_k=SELECTED, **DENSE_ONLY)
    scan = ExactScan(corpus)
    scanned, exact = _timed(_scan(corpus, scan), n)
    _, flat = _timed(ask(dense, corpus, "flat"), n)
    _, found = _timed(ask(dense, corpus, "hierarchical"), n)
    searched, _ = _timed(_routed(corpus, deployment), n)
    shares = scanned_shares(corpus, deployment)
    loose = _unclustered(exact, deployment)
    clusters = f"{SELECTED} of K = {len(made.clusters)} clusters, {made.assigned / corpus.size:.0%} clustered"
    yield Figure("recall_at_10", agreement(flat, exact), "share of the exact ten", RECALL_TARGET, note=f"{size}, flat")
    yield Figure("hierarchical_recall_at_10", agreement(found, exact), "share of the exact ten", RECALL_TARGET,
                 note=f"{size}, {clusters}")  # fmt: skip
    yield Figure("hierarchical_recall_unclustered", agreement(found, loose), "share of the exact ten",
                 note=f"{size}, answers without a cluster alone ({sum(map(len, loose))})")  # fmt: skip
    yield Figure("hierarchical_scanned", float(np.mean(shares)), "share of the points", SCANNED_TARGET,
                 low_is_good=True, note=f"{size}, at most {max(shares, default=0):.0%}")  # fmt: skip
    yield Figure("hierarchical_search", _median(searched), "ms", SPEED_TARGET,
                 _median(scanned), "an exact scan with numpy", judged="ratio", low_is_good=True,
                 note=f"{size}, the ten nearest: clusters chosen and searched, beside a scan of all",
                 unjudged=bench.scale.at_full("100 000 episodes"))  # fmt: skip
    scanning = cast(VectorStore, ScannedStore(deployment.vectors, scan))
    for name, parts, what in (
        ("hierarchical_recall_by_meaning", DENSE_ONLY, "by meaning alone"),
        ("hierarchical_recall", {}, "all parts"),
    ):
        ours, theirs = (
            recaller(deployment, corpus.queries, None, None, store, cluster_selection_k=SELECTED, **parts)
            for store in (deployment.vectors, scanning)
        )
        whole, _ = _timed(ask(ours, corpus, "hierarchical"), n)
        peer, _ = _timed(ask(theirs, corpus, "flat"), n)
        yield Figure(name, _median(whole), "ms", math.nan, _median(peer), "the same over an exact scan",
                     low_is_good=True, note=f"{size}, the whole recall, {what}")  # fmt: skip


def _million(bench: Bench, small: Corpus) -> Iterator[Figure]:
    """The same texts a million times; stored, consolidated and asked by one process after the other."""
    name, memory = "recall_million_p95", "recall_million_memory"
    if why := lacking(MILLION) if bench.scale.full else "at --scale full only":
        yield skipped(name, "ms", why, MILLION_TARGET, low_is_good=True)
        yield skipped(memory, "GiB", why, MEMORY_TARGET, low_is_good=True)
        return
    corpus = Corpus.of(MILLION, len(small.queries), small.real, small.base)
    settings, cost = kept(bench, corpus)
    bench.say("  asking")
    answering, (first, auto, flat) = aside(bench, _answer, settings, corpus)
    bench.say("  scanning them")
    scanned = p95(aside(bench, _scanned, corpus))
    peer = (scanned, "an exact scan with numpy")
    size = f"{corpus.size:,} episodes in K = {cost.clusters} clusters, cached query"
    yield Figure(name, p95(auto), "ms", MILLION_TARGET, *peer, low_is_good=True,
                 note=f"{size}, auto, after {len(first)} other queries")  # fmt: skip
    yield Figure("recall_million_first_p95", p95(first), "ms", low_is_good=True,
                 note=f"{size}, auto, the first {len(first)} of a process: pages come from files")  # fmt: skip
    yield Figure("recall_million_flat_p95", p95(flat), "ms", math.nan, *peer, low_is_good=True, note=f"{size}, flat")
    note = (
        f"most of a process: {cost.storing:.1f} storing, {cost.consolidating:.1f} consolidating, "
        f"{answering:.1f} answering"
    )
    yield Figure(memory, max(cost.storing, cost.consolidating, answering), "GiB", MEMORY_TARGET,
                 low_is_good=True, note=note)  # fmt: skip


def _answer(settings: Settings, corpus: Corpus) -> tuple[float, tuple[list[float], list[float], list[float]]]:
    """GiB that it takes, and the seconds of each recall: of every other query by the process's first ones, and of the
    others then, both where it chooses; and of these flat."""
    deployment = Deployment(settings)
    recall = recaller(deployment, corpus.queries)
    n = len(corpus.queries)
    first, _ = _timed(ask(recall, corpus, "auto"), range(0, n, 2))
    auto, _ = _timed(ask(recall, corpus, "auto"), range(1, n, 2))
    flat, _ = _timed(ask(recall, corpus, "flat"), range(1, n, 2))
    deployment.close()
    return most_resident(), (first, auto, flat)


def _scanned(corpus: Corpus) -> list[float]:
    """The seconds of each of the same queries by an exact scan, whose rows take 1.5 GB."""
    seconds, _ = _timed(_scan(corpus, ExactScan(corpus)), range(1, len(corpus.queries), 2))
    return seconds


def _median(seconds: Sequence[float]) -> float:
    """In milliseconds."""
    return 1000 * float(np.median(seconds))


# -- ways to answer the query of a number


def ask(recall: Recaller, corpus: Corpus, mode: Mode) -> Callable[[int], list[str]]:
    """The best ``K`` of the query of a number."""

    def one(i: int) -> list[str]:
        where = Where(sessions=(SESSION,))
        return [r.episode_id for r in recall.recall(RecallRequest(corpus.asked[i], where=where, limit=K, mode=mode))]

    return one


def _scan(corpus: Corpus, scan: ExactScan) -> Callable[[int], list[str]]:
    return lambda i: [hit.episode_id for hit in scan.nearest(corpus.queries[i], K)]


def _routed(corpus: Corpus, deployment: Deployment) -> Callable[[int], list[str]]:
    """The nearest clusters and a search in them, without anything around it."""
    route = Router(deployment.graph, deployment.vectors).route(deployment.graph.current_attempts((SESSION,)))

    def one(i: int) -> list[str]:
        cells = () if route is None else route.nearest(corpus.queries[i], SELECTED)
        where = Where(sessions=(SESSION,), cells=cells, uncelled=True)
        (hits,) = deployment.vectors.search([Search(CONTENT, corpus.queries[i], where, limit=K)])
        return [hit.episode_id for hit in hits]

    return one


def scanned_shares(corpus: Corpus, deployment: Deployment) -> list[float]:
    """What share of all points each query scans by clusters."""
    route = Router(deployment.graph, deployment.vectors).route(deployment.graph.current_attempts((SESSION,)))
    if route is None:
        return []
    cells = [route.nearest(query, SELECTED) for query in corpus.queries]
    counts = [deployment.vectors.count(Where(sessions=(SESSION,), cells=these, uncelled=True)) for these in cells]
    return [count / corpus.size for count in counts]


def _unclustered(exact: Sequence[Sequence[str]], deployment: Deployment) -> list[list[str]]:
    """Of each query's true answers those that no cluster holds."""
    rows = deployment.graph.get(sorted({name for answers in exact for name in answers}))
    return [[name for name in answers if rows[name].cluster_id is None] for answers in exact]


def _timed(work: Callable[[int], list[str]], numbers: Iterable[int]) -> tuple[list[float], list[list[str]]]:
    """Seconds and answers by query; the first call of all, which makes ready, is not timed."""
    work(0)
    seconds, answers = [], []
    for i in numbers:
        started = time.perf_counter()
        answers.append(work(i))
        seconds.append(time.perf_counter() - started)
    return seconds, answers


def agreement(found: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """Mean share of the true answers that were found, over the queries that have any; nan without one."""
    shares = [len(set(f) & set(t)) / len(t) for f, t in zip(found, true, strict=True) if t]
    return float(np.mean(shares)) if shares else math.nan
