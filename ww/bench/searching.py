"""Recall with a cached query, and search by clusters, beside an exact scan with numpy over the same rows."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np

from ww.bench.corpus import Corpus, drawn
from ww.bench.figure import Bench, Figure, p95, skipped
from ww.bench.filled import SESSION, consolidate, filled, recaller
from ww_core.deployment import Deployment
from ww_core.models import Run
from ww_core.recall.hierarchy import Router
from ww_core.recall.request import Mode, RecallRequest
from ww_core.recall.service import Recaller
from ww_core.stores.ports import CONTENT, Search, Where

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
FREE_GIB = 14.0
"""Memory that must be free before a million episodes are tried."""
DENSE_ONLY = {
    f"recall_weight_{part}": 0
    for part in ("context", "bm25", "bm25_context", "neighbours", "importance", "recency", "speaker", "date")
}
NO_TARGET = math.nan


def run(bench: Bench) -> list[Figure]:
    """At 10 000 episodes; at full scale 100 000, and a million where there is memory for it."""
    corpus = drawn(bench, bench.scale.searched)
    with filled(corpus, bench, "recall") as deployment:
        made = consolidate(deployment)
        figures = [*_latency(corpus, deployment, bench), *_by_clusters(corpus, deployment, made, bench)]
    if bench.scale.full:
        figures += _million(bench, corpus)
    return figures


def _latency(corpus: Corpus, deployment: Deployment, bench: Bench) -> list[Figure]:
    everything = recaller(deployment, corpus.queries)
    scanned, _ = _timed(_scan(corpus), len(corpus.queries))
    figures = []
    modes: tuple[tuple[Mode, str], ...] = (("flat", "recall_p95"), ("auto", "recall_auto_p95"))
    for mode, name in modes:
        seconds, _ = _timed(ask(everything, corpus, mode), len(corpus.queries))
        figures.append(
            Figure(name, p95(seconds), "ms", P95_TARGET, p95(scanned), "an exact scan with numpy", low_is_good=True,
                   note=f"{corpus.size:,} episodes, cached query, all parts, {mode}")
        )  # fmt: skip
    return figures


def _by_clusters(corpus: Corpus, deployment: Deployment, made: Run, bench: Bench) -> list[Figure]:
    n, size = len(corpus.queries), f"{corpus.size:,} episodes"
    judged = bench.scale.full
    dense = recaller(deployment, corpus.queries, cluster_selection_k=SELECTED, **DENSE_ONLY)
    scanned, exact = _timed(_scan(corpus), n)
    _, flat = _timed(ask(dense, corpus, "flat"), n)
    clustered, found = _timed(ask(dense, corpus, "hierarchical"), n)
    alone, _ = _timed(_routed(corpus, deployment), n)
    shares = _shares(corpus, deployment)
    clusters = len(made.clusters)
    loose = _unclustered(exact, deployment)
    note = f"{size}, {SELECTED} of K = {clusters} clusters, {made.assigned / corpus.size:.0%} clustered"
    speed = (SPEED_TARGET if judged else NO_TARGET, 1000 * float(np.median(scanned)), "an exact scan with numpy")
    return [
        Figure("recall_at_10", agreement(flat, exact), "share of the exact ten", RECALL_TARGET, note=f"{size}, flat"),
        Figure("hierarchical_recall_at_10", agreement(found, exact), "share of the exact ten", RECALL_TARGET,
               note=note),
        Figure("hierarchical_recall_unclustered", agreement(found, loose), "share of the exact ten",
               note=f"{size}, answers without a cluster alone ({sum(map(len, loose))})"),
        Figure("hierarchical_scanned", float(np.mean(shares)), "share of the points", SCANNED_TARGET,
               low_is_good=True, note=f"{size}, at most {max(shares, default=0):.0%}"),
        Figure("hierarchical_recall", 1000 * float(np.median(clustered)), "ms", *speed, judged="ratio",
               low_is_good=True, note=f"{size}, the whole recall by meaning alone"),
        Figure("hierarchical_search", 1000 * float(np.median(alone)), "ms", *speed, judged="ratio",
               low_is_good=True, note=f"{size}, the search alone"),
    ]  # fmt: skip


def _million(bench: Bench, small: Corpus) -> list[Figure]:
    name = "recall_million_p95"
    if (free := _free_gib()) < FREE_GIB:
        return [skipped(name, "ms", f"{free:.0f} GiB of memory are free, {FREE_GIB:.0f} are wanted")]
    corpus = Corpus.of(MILLION, len(small.queries), small.real, small.base)
    with filled(corpus, bench, "million") as deployment:
        made = consolidate(deployment)
        everything, figures = recaller(deployment, corpus.queries), []
        modes: tuple[tuple[Mode, str, float], ...] = (
            ("auto", name, MILLION_TARGET),
            ("flat", "recall_million_flat_p95", NO_TARGET),
        )
        for mode, figure, target in modes:
            seconds, _ = _timed(ask(everything, corpus, mode), len(corpus.queries))
            figures.append(
                Figure(figure, p95(seconds), "ms", target, low_is_good=True,
                       note=f"{MILLION:,} episodes in K = {len(made.clusters)} clusters, cached query, {mode}")
            )  # fmt: skip
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return [
        *figures,
        Figure("recall_million_memory", memory, "GiB", MEMORY_TARGET, low_is_good=True, note="the most it ever was"),
    ]


def _free_gib() -> float:
    """Memory that is to be had, inf where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in file}
        return kilobytes["MemAvailable"] / 2**20
    except (OSError, KeyError, ValueError):
        return math.inf


# -- ways to answer the query of a number


def ask(recall: Recaller, corpus: Corpus, mode: Mode) -> Callable[[int], list[str]]:
    """The best ``K`` of the query of a number."""

    def one(i: int) -> list[str]:
        where = Where(sessions=(SESSION,))
        return [r.episode_id for r in recall.recall(RecallRequest(corpus.asked[i], where=where, limit=K, mode=mode))]

    return one


def _scan(corpus: Corpus) -> Callable[[int], list[str]]:
    """Over all rows with numpy, as exact search does it."""
    matrix = corpus.rows(0, corpus.size)

    def one(i: int) -> list[str]:
        similarity = matrix @ corpus.queries[i]
        best = np.argpartition(-similarity, K)[:K]
        return [corpus.name(int(row)) for row in best[np.argsort(-similarity[best])]]

    return one


def _routed(corpus: Corpus, deployment: Deployment) -> Callable[[int], list[str]]:
    """The nearest clusters and a search in them, without anything around it."""
    route = Router(deployment.graph, deployment.vectors).route(deployment.graph.current_runs((SESSION,)))

    def one(i: int) -> list[str]:
        cells = () if route is None else route.nearest(corpus.queries[i], SELECTED)
        where = Where(sessions=(SESSION,), cells=cells, uncelled=True)
        (hits,) = deployment.vectors.search([Search(CONTENT, corpus.queries[i], where, limit=K)])
        return [hit.episode_id for hit in hits]

    return one


def _shares(corpus: Corpus, deployment: Deployment) -> list[float]:
    """What share of all points each query scans by clusters."""
    route = Router(deployment.graph, deployment.vectors).route(deployment.graph.current_runs((SESSION,)))
    if route is None:
        return []
    cells = [route.nearest(query, SELECTED) for query in corpus.queries]
    counts = [deployment.vectors.count(Where(sessions=(SESSION,), cells=these, uncelled=True)) for these in cells]
    return [count / corpus.size for count in counts]


def _unclustered(exact: Sequence[Sequence[str]], deployment: Deployment) -> list[list[str]]:
    """Of each query's true answers those that no cluster holds."""
    rows = deployment.graph.get(sorted({name for answers in exact for name in answers}))
    return [[name for name in answers if rows[name].cluster_id is None] for answers in exact]


def _timed(work: Callable[[int], list[str]], n: int) -> tuple[list[float], list[list[str]]]:
    work(0)
    seconds, answers = [], []
    for i in range(n):
        started = time.perf_counter()
        answers.append(work(i))
        seconds.append(time.perf_counter() - started)
    return seconds, answers


def agreement(found: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """Mean share of the true answers that were found, over the queries that have any; nan without one."""
    shares = [len(set(f) & set(t)) / len(t) for f, t in zip(found, true, strict=True) if t]
    return float(np.mean(shares)) if shares else math.nan
