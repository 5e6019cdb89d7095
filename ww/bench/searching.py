"""Recall with a cached query, and search by clusters, beside an exact scan with numpy over the same rows."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ww.bench.figure import Bench, Figure, p95
from ww.bench.spread import SESSION, Spread, recaller, stored
from ww_core.recall.request import Mode, RecallRequest
from ww_core.stores.ports import CONTENT, Search, Where

K = 10
P95_TARGET = 20.0
SPEED_TARGET = 5.0
RECALL_TARGET = 0.95
DENSE_ONLY = {f"recall_weight_{part}": 0 for part in ("context", "bm25_context", "neighbours", "importance", "recency")}


def run(bench: Bench) -> list[Figure]:
    """At 10 000 episodes, or 100 000 at full scale."""
    spread = Spread(bench.scale.searched, bench.scale.queries)
    with stored(spread, bench.place("search")) as deployment:
        everything = recaller(deployment, spread)
        dense = recaller(deployment, spread, cluster_selection_k=3, **DENSE_ONLY)

        def ask(recall: object, mode: Mode) -> Callable[[int], list[str]]:
            def one(i: int) -> list[str]:
                where = Where(sessions=(SESSION,))
                request = RecallRequest(f"subject{i} {i}", where=where, limit=K, mode=mode)
                return [found.episode_id for found in recall.recall(request)]  # type: ignore[attr-defined]

            return one

        def scan(i: int) -> list[str]:
            return spread.exact(spread.queries[i], K)

        def routed(i: int) -> list[str]:
            query = spread.queries[i]
            nearest = np.argsort(-(centroids @ query))[:3]
            where = Where(sessions=(SESSION,), cells=tuple(names[c] for c in nearest))
            (hits,) = deployment.vectors.search([Search(CONTENT, query, where, limit=K)])
            return [hit.episode_id for hit in hits]

        current = deployment.graph.current_runs((SESSION,))[SESSION]
        stored_centroids = deployment.vectors.centroids(SESSION, current)
        names = [c.cluster_id for c in stored_centroids]
        centroids = np.stack([c.vector for c in stored_centroids])
        n = bench.scale.queries
        (scanned, exact), (recalled, _) = _timed(scan, n), _timed(ask(everything, "flat"), n)
        (_, flat), (_, clustered) = _timed(ask(dense, "flat"), n), _timed(ask(dense, "hierarchical"), n)
        found, _ = _timed(routed, n)
    size = f"{bench.scale.searched:,} episodes"
    small = "" if bench.scale.full else "; judged at --scale full"
    return [
        Figure("recall_p95", p95(recalled), "ms", P95_TARGET, p95(scanned), "an exact scan with numpy",
               low_is_good=True, note=f"{size}, cached query, all parts"),
        Figure("recall_at_10", _agreement(flat, exact), "share of the exact ten", RECALL_TARGET, note=f"{size}, flat"),
        Figure("hierarchical_recall_at_10", _agreement(clustered, exact), "share of the exact ten", RECALL_TARGET,
               note=f"{size}, 3 clusters of {len(names)}"),
        Figure("hierarchical_search", 1000 * float(np.median(found)), "ms",
               SPEED_TARGET if bench.scale.full else float("nan"), 1000 * float(np.median(scanned)),
               "an exact scan with numpy", judged="ratio", low_is_good=True, note=size + small),
    ]  # fmt: skip


def _timed(work: Callable[[int], list[str]], n: int) -> tuple[list[float], list[list[str]]]:
    work(0)
    seconds, answers = [], []
    for i in range(n):
        started = time.perf_counter()
        answers.append(work(i))
        seconds.append(time.perf_counter() - started)
    return seconds, answers


def _agreement(found: list[list[str]], true: list[list[str]]) -> float:
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, true, strict=True)]))
