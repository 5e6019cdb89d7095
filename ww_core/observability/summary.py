"""From what one or several processes measured to the figures that people read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from ww_core.observability.history import LastFailure
from ww_core.observability.metrics import ATTEMPTS, FAILURES, Snapshot, StageFigures
from ww_core.observability.sketch import Sketch

CACHE_HITS = "embedding_cache_hits"
"""Counter: texts whose embedding was in the cache."""
CACHE_TOTAL = "embedding_cache_total"
"""Counter: texts looked up there."""
CLAIMED, CLAIMABLE = "embed.claimed", "embed.claimable"
"""Counters: episodes in claims that found any, and how many those claims could have held."""
POOL_UTIL = "neo4j_pool_util"
"""Peak, and the counter of its readings: read whenever a connection is taken, waited for or given back."""
QUEUE_DEPTH = "qdrant_queue_depth"
"""Gauge: points that this process embedded and has not written yet."""
UPDATE_QUEUE = "qdrant_update_queue"
"""Gauge: updates that the Qdrant server has taken and not carried out yet."""
GAP = "recall.hierarchical_gap"
"""Gauge: share of flat results that hierarchical search missed, on the sampled queries."""
EPISODES = "episodes."
"""Gauges: this and a state."""
STANDING = "standing."
"""Gauges: this and a field of Standing, what the visible runs of all sessions come to."""
BACKLOG_AGE = "oldest_pending_seconds"
"""Gauge: age of the oldest episode that is not embedded yet."""
LAG = "lag"
"""Stage: store to findable."""

SUMMED = frozenset({QUEUE_DEPTH})
"""Gauges that add up over processes; of the others the worst (largest) is shown."""


def summarise(dumps: Iterable[Mapping[str, Any]]) -> Snapshot:
    """Merge what ``Metrics.dump`` gave, one or many, into one snapshot."""
    sketches: dict[str, Sketch] = {}
    window: dict[str, int] = {}
    totals: dict[str, int] = {}
    gauges: dict[str, float] = {}
    peaks: dict[str, float] = {}
    failures: list[LastFailure] = []
    errors = processes = 0
    for dump in dumps:
        processes += measured(dump)
        for piece in dump["slices"]:
            for name, data in piece["sketches"].items():
                sketches.setdefault(name, Sketch()).merge(Sketch.load(data))
            for name, n in piece["counts"].items():
                window[name] = window.get(name, 0) + n
            for name, value in piece["peaks"].items():
                peaks[name] = max(value, peaks.get(name, value))
        for name, n in dump["totals"].items():
            totals[name] = totals.get(name, 0) + n
        for name, value in dump["gauges"].items():
            if name in SUMMED:
                gauges[name] = gauges.get(name, 0.0) + value
            else:
                gauges[name] = max(gauges.get(name, -math.inf), value)
        errors += dump["errors"]
        failures += [
            LastFailure(datetime.fromtimestamp(at, UTC), action, error, message)
            for at, action, error, message in dump["last_failures"]
        ]
    stages = {name: _figures(sketch) for name, sketch in sorted(sketches.items())}
    nothing = _figures(Sketch())
    recall, store = stages.get("recall", nothing), stages.get("store", nothing)
    return Snapshot(
        recall_latency_p50=recall.p50,
        recall_latency_p95=recall.p95,
        recall_latency_p99=recall.p99,
        cache_hit_rate=_share(window.get(CACHE_HITS, 0), window.get(CACHE_TOTAL, 0)),
        neo4j_pool_util=peaks.get(POOL_UTIL, math.nan),
        qdrant_queue_depth=gauges.get(QUEUE_DEPTH, math.nan),
        error_rate=_share(window.get(FAILURES, 0), window.get(ATTEMPTS, 0)),
        store_latency_p50=store.p50,
        store_latency_p95=store.p95,
        store_latency_p99=store.p99,
        lag_p95=stages.get(LAG, nothing).p95,
        clusters=gauges.get(STANDING + "clusters", math.nan),
        clusters_merged=gauges.get(STANDING + "merged", math.nan),
        clusters_split=gauges.get(STANDING + "split", math.nan),
        unclustered_share=_share(gauges.get(STANDING + "noise", 0.0), gauges.get(STANDING + "considered", 0.0)),
        consolidation_sampled=gauges.get(STANDING + "sampled", math.nan),
        consolidation_seconds=gauges.get(STANDING + "seconds", math.nan),
        stages=stages,
        counters=totals,
        window=window,
        gauges=gauges,
        errors=errors,
        last_failures=tuple(sorted(failures, key=lambda failure: failure.at)),
        processes=processes,
    )


def measured(dump: Mapping[str, Any]) -> bool:
    """Whether there is anything in it."""
    return bool(dump["slices"] or dump["totals"] or dump["gauges"])


def _figures(sketch: Sketch) -> StageFigures:
    p50, p95, p99 = (1000 * sketch.quantile(q) for q in (0.5, 0.95, 0.99))
    return StageFigures(sketch.count, 1000 * sketch.mean(), p50, p95, p99)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
