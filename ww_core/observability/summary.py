"""From what one or several processes measured to the figures that people read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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


@dataclass(slots=True)
class _Merged:
    """What several processes measured, put together."""

    processes: int = 0
    errors: int = 0
    sketches: dict[str, Sketch] = field(default_factory=dict)
    window: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)
    failures: list[LastFailure] = field(default_factory=list)

    def add(self, dump: Mapping[str, Any]) -> None:
        self.processes += measured(dump)
        self.errors += dump["errors"]
        for piece in dump["slices"]:
            for name, data in piece["sketches"].items():
                self.sketches.setdefault(name, Sketch()).merge(Sketch.load(data))
            self.window.update(piece["counts"])
            for name, value in piece["peaks"].items():
                self.peaks[name] = max(value, self.peaks.get(name, value))
        self.totals.update(dump["totals"])
        for name, value in dump["gauges"].items():
            if name in SUMMED:
                self.gauges[name] = self.gauges.get(name, 0.0) + value
            else:
                self.gauges[name] = max(value, self.gauges.get(name, value))
        self.failures += [
            LastFailure(datetime.fromtimestamp(at, UTC), action, error, message)
            for at, action, error, message in dump["last_failures"]
        ]


def summarise(dumps: Iterable[Mapping[str, Any]]) -> Snapshot:
    """Merge what ``Metrics.dump`` gave, one or many, into one snapshot."""
    merged = _Merged()
    for dump in dumps:
        merged.add(dump)
    gauges, window = merged.gauges, merged.window
    stages = {name: _figures(sketch) for name, sketch in sorted(merged.sketches.items())}
    nothing = _figures(Sketch())
    recall, store = stages.get("recall", nothing), stages.get("store", nothing)
    return Snapshot(
        recall_latency_p50=recall.p50,
        recall_latency_p95=recall.p95,
        recall_latency_p99=recall.p99,
        cache_hit_rate=_share(window[CACHE_HITS], window[CACHE_TOTAL]),
        neo4j_pool_util=merged.peaks.get(POOL_UTIL, math.nan),
        qdrant_queue_depth=gauges.get(QUEUE_DEPTH, math.nan),
        error_rate=_share(window[FAILURES], window[ATTEMPTS]),
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
        pending_episodes=gauges.get(EPISODES + "pending", math.nan),
        oldest_pending_seconds=gauges.get(BACKLOG_AGE, math.nan),
        batch_fill=_share(window[CLAIMED], window[CLAIMABLE]),
        hierarchical_gap=gauges.get(GAP, math.nan),
        stages=stages,
        counters=dict(merged.totals),
        window=dict(window),
        gauges=gauges,
        errors=merged.errors,
        last_failures=tuple(sorted(merged.failures, key=lambda failure: failure.at)),
        processes=merged.processes,
    )


def measured(dump: Mapping[str, Any]) -> bool:
    """Whether there is anything in it."""
    return bool(dump["slices"] or dump["totals"] or dump["gauges"])


def _figures(sketch: Sketch) -> StageFigures:
    p50, p95, p99 = (1000 * sketch.quantile(q) for q in (0.5, 0.95, 0.99))
    return StageFigures(sketch.count, 1000 * sketch.mean(), p50, p95, p99)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
