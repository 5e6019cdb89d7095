"""The guide's four alerts: what is measured for each, and which level that is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ww_core.config import Settings
from ww_core.observability.metrics import ATTEMPTS, Snapshot
from ww_core.observability.summary import CACHE_TOTAL, POOL_UTIL


class Level(StrEnum):
    """``unknown``: nothing measured, or too little to say."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


RAISED = frozenset({Level.WARNING, Level.CRITICAL})

HINTS: Mapping[str, str] = {
    "cache_hit_rate": (
        "where queries rarely repeat, as in chats, nothing is wrong: set alert_cache_hit_rate_warning and "
        "alert_cache_hit_rate_critical to 0; where they do, raise embedding_cache_size or embedding_cache_ttl"
    ),
}
"""What to make of a raised alert whose figure may be bad by the nature of what is asked."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of the guide's table. ``value`` is milliseconds for latencies and a share of 1 otherwise."""

    name: str
    value: float
    samples: int
    """Measurements behind the value."""
    warning: float
    critical: float
    low_is_bad: bool = False

    def level(self, before: Level, *, least_samples: int, hysteresis: float) -> Level:
        """The level now. It rises at once, and falls only when the value is better than the threshold by the share
        ``hysteresis`` of it, so that a value at a threshold does not flap."""
        if not math.isfinite(self.value) or self.samples < least_samples:
            return Level.UNKNOWN
        if self._beyond(self.critical, hysteresis if before is Level.CRITICAL else 0.0):
            return Level.CRITICAL
        if self._beyond(self.warning, hysteresis if before in RAISED else 0.0):
            return Level.WARNING
        return Level.OK

    def _beyond(self, threshold: float, margin: float) -> bool:
        if self.low_is_bad:
            return self.value < min(threshold * (1 + margin), 1.0)
        return self.value > threshold * (1 - margin)


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule and its level."""

    name: str
    level: Level
    value: float
    warning: float
    critical: float
    samples: int
    """Measurements behind the value."""
    hint: str = ""
    """What to make of it where it is raised, for those in HINTS."""


def rules(figures: Snapshot, settings: Settings) -> tuple[Rule, ...]:
    """The guide's rows, in its order, with what was measured."""
    s = settings
    recalls = figures.stages["recall"].count if "recall" in figures.stages else 0
    lookups, used, attempts = (figures.window.get(name, 0) for name in (CACHE_TOTAL, POOL_UTIL, ATTEMPTS))
    cache, pool = figures.cache_hit_rate, figures.neo4j_pool_util
    return (
        Rule(
            "recall_p95", figures.recall_latency_p95, recalls, s.alert_recall_p95_warning, s.alert_recall_p95_critical
        ),
        Rule("cache_hit_rate", cache, lookups, s.alert_cache_hit_rate_warning, s.alert_cache_hit_rate_critical, True),
        Rule("pool_utilization", pool, used, s.alert_pool_utilization_warning, s.alert_pool_utilization_critical),
        Rule("error_rate", figures.error_rate, attempts, s.alert_error_rate_warning, s.alert_error_rate_critical),
    )


def evaluate(figures: Snapshot, settings: Settings, before: Mapping[str, Level]) -> tuple[Alert, ...]:
    """Every alert's level, given the last known levels ``before``."""
    found = []
    for rule in rules(figures, settings):
        level = rule.level(
            before.get(rule.name, Level.UNKNOWN),
            least_samples=settings.alert_min_samples,
            hysteresis=settings.alert_hysteresis,
        )
        hint = hint_of(rule.name, level)
        found.append(Alert(rule.name, level, rule.value, rule.warning, rule.critical, rule.samples, hint))
    return tuple(found)


def hint_of(name: str, level: Level) -> str:
    """What to make of an alert at that level; empty where there is nothing to add."""
    return HINTS.get(name, "") if level in RAISED else ""
