"""The figures in Prometheus' text format: one table of names, nothing where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ww_core.observability.metrics import Snapshot
from ww_core.observability.summary import (
    BACKLOG_AGE,
    EPISODES,
    GAP,
    QUEUE_DEPTH,
    STANDING,
    UPDATE_QUEUE,
)

PREFIX = "world_weaver_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labelled = tuple[str, float]
"""A label's value and the figure."""


@dataclass(frozen=True, slots=True)
class Family:
    """One exported name. Without a ``label`` the family is the one figure that ``read`` gives under ''.

    Everything is a gauge: the figures look back five minutes over processes that come and go, so none only rises.
    """

    name: str
    help: str
    read: Callable[[Snapshot], Iterable[Labelled]]
    label: str = ""


def _field(name: str, help_: str) -> Family:
    return Family(name, help_, lambda figures: [("", float(getattr(figures, name)))])


def _gauge(key: str, name: str, help_: str) -> Family:
    return Family(name, help_, lambda figures: [("", figures.gauges.get(key, math.nan))])


def _stage(attribute: str, name: str, help_: str) -> Family:
    return Family(
        name, help_, lambda f: [(stage, float(getattr(s, attribute))) for stage, s in f.stages.items()], "stage"
    )


def _states(figures: Snapshot) -> list[Labelled]:
    return [(k.removeprefix(EPISODES), v) for k, v in figures.gauges.items() if k.startswith(EPISODES)]


def _other_gauges(figures: Snapshot) -> list[Labelled]:
    return [(k, v) for k, v in figures.gauges.items() if k not in _NAMED and not k.startswith((EPISODES, STANDING))]


_NAMED = frozenset({GAP, BACKLOG_AGE, QUEUE_DEPTH, UPDATE_QUEUE})

TABLE: tuple[Family, ...] = (
    _field("recall_latency_p50", "Median of a recall, milliseconds."),
    _field("recall_latency_p95", "95th percentile of a recall, milliseconds."),
    _field("recall_latency_p99", "99th percentile of a recall, milliseconds."),
    _field("store_latency_p50", "Median of one store, milliseconds."),
    _field("store_latency_p95", "95th percentile of one store, milliseconds."),
    _field("store_latency_p99", "99th percentile of one store, milliseconds."),
    _field("lag_p95", "95th percentile from stored to findable, milliseconds."),
    _field("cache_hit_rate", "Share of texts whose embedding was in the cache."),
    _field("neo4j_pool_util", "Largest share of the Neo4j pool's connections in use in the last five minutes."),
    _field("qdrant_queue_depth", "Points embedded and waiting to be written."),
    _gauge(UPDATE_QUEUE, "qdrant_update_queue", "Updates that the Qdrant server has not carried out yet."),
    _field("clusters", "Clusters of all sessions, as consolidation left them."),
    _field("clusters_merged", "Clusters that the last published run of their session made of several."),
    _field("clusters_split", "Clusters that the last published run of their session made by splitting one."),
    _field("unclustered_share", "Share of what was new to those runs that belongs to no cluster."),
    _field("consolidation_sampled", "Episodes clustered by the run that was published last."),
    _field("consolidation_seconds", "Duration of the run that was published last, seconds."),
    _field("error_rate", "Share of stores, recalls and task attempts that failed."),
    _field("errors", "Failures kept in the Error History of all processes."),
    _field("processes", "Processes that published figures lately."),
    _field("batch_fill", "Share of embedding_claim_size that claims held."),
    _field("pending_episodes", "Episodes that wait to be embedded."),
    Family("episodes", "Episodes by state.", _states, "state"),
    _field("oldest_pending_seconds", "Age of the oldest episode that is not embedded yet."),
    _field("hierarchical_gap", "Share of results that searching by clusters misses."),
    _stage("mean", "stage_latency_mean", "Mean of one stage, milliseconds."),
    _stage("p50", "stage_latency_p50", "Median of one stage, milliseconds."),
    _stage("p95", "stage_latency_p95", "95th percentile of one stage, milliseconds."),
    _stage("p99", "stage_latency_p99", "99th percentile of one stage, milliseconds."),
    _stage("count", "stage_count", "How often a stage was measured in the last five minutes."),
    Family("window_count", "What was counted in the last five minutes.", lambda f: f.window.items(), "counter"),
    Family("gauge", "Figures without a name of their own.", _other_gauges, "gauge"),
)
"""Every name exported from a Snapshot, without the prefix."""

QUEUE_LENGTH = "queue_length"
"""Exported beside the table where there is a broker: messages waiting, by ``queue``."""


def names() -> frozenset[str]:
    """Every name that may be exported, with the prefix."""
    return frozenset(PREFIX + name for name in (*(family.name for family in TABLE), QUEUE_LENGTH))


def exposition(figures: Snapshot, *, queues: Mapping[str, int] | None = None) -> str:
    """The page that Prometheus reads; ``queues``: messages waiting in each."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import GaugeMetricFamily

    class Collector:
        """The library asks it when the page is made."""

        def collect(self) -> Iterator[GaugeMetricFamily]:
            rows = [(f.name, f.help, f.label, list(f.read(figures))) for f in TABLE]
            rows.append((QUEUE_LENGTH, "Messages waiting in a task queue.", "queue", list((queues or {}).items())))
            for name, help_, label, values in rows:
                family = GaugeMetricFamily(PREFIX + name, help_, labels=[label] if label else [])
                for value, figure in values:
                    if math.isfinite(figure):
                        family.add_metric([value] if label else [], figure)
                if family.samples:
                    yield family

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector())
    page: bytes = generate_latest(registry)
    return page.decode()
