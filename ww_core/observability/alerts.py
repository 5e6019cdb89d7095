"""The guide's four alerts: their levels now, what they were before, and who is told when one changes."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from ww_core.config import Settings
from ww_core.observability.metrics import ATTEMPTS, Snapshot
from ww_core.observability.summary import CACHE_TOTAL, POOL_UTIL

log = logging.getLogger(__name__)

FACT = "alerts"
"""Fact in the graph store: the levels at the last check, the changes before it, and those not sent yet."""
HISTORY_SIZE = 100
"""Changes of a level that are kept."""
UNSENT_SIZE = 20
"""Changes kept for a webhook that does not answer; older ones are no news any more."""


class Level(StrEnum):
    """``unknown``: nothing measured, or too little to say."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"


RAISED = frozenset({Level.WARNING, Level.CRITICAL})


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
    samples: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A level that became another. ``at`` is ISO 8601; ``value`` None where it was not measured."""

    at: str
    name: str
    before: str
    level: str
    value: float | None
    warning: float
    critical: float


class Facts(Protocol):
    """The part of the graph store that remembers."""

    def get_fact(self, key: str) -> str | None: ...

    def put_fact(self, key: str, value: str) -> None: ...


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
    return tuple(
        Alert(
            name=rule.name,
            level=rule.level(
                before.get(rule.name, Level.UNKNOWN),
                least_samples=settings.alert_min_samples,
                hysteresis=settings.alert_hysteresis,
            ),
            value=rule.value,
            warning=rule.warning,
            critical=rule.critical,
            samples=rule.samples,
        )
        for rule in rules(figures, settings)
    )


@dataclass(frozen=True, slots=True)
class _Memory:
    at: str | None
    levels: Mapping[str, Level]
    known: Mapping[str, Level]
    """The last level of each that was not ``unknown``: too few samples end no alert."""
    history: tuple[Change, ...]
    unsent: tuple[Change, ...]


class AlertWatch:
    """Compares the deployment's figures with the thresholds. ``read`` gives the figures, ``send`` tells somebody about
    changes (whether that worked), ``clock`` is the time of day."""

    def __init__(
        self,
        facts: Facts,
        settings: Settings,
        *,
        read: Callable[[], Snapshot],
        clock: Callable[[], datetime],
        send: Callable[[Sequence[Change]], bool] | None = None,
    ) -> None:
        self._facts = facts
        self._settings = settings
        self._read = read
        self._clock = clock
        self._send = send

    def look(self) -> tuple[Alert, ...]:
        """The levels now; nothing is kept and nobody is told."""
        return evaluate(self._read(), self._settings, self._remembered().known)

    def history(self) -> tuple[Change, ...]:
        """The last changes that checks found, oldest first."""
        return self._remembered().history

    def check(self) -> tuple[Alert, ...]:
        """The levels now; what changed since the last check is kept, logged, and sent where a level was raised or fell.

        What becomes ``unknown`` keeps the level it had: nobody is told before it has another one. Several
        processes may check one deployment: each compares with what the last of them found.
        """
        memory = self._remembered()
        alerts = evaluate(self._read(), self._settings, memory.known)
        at = self._clock().isoformat()
        changes = _changed(alerts, memory.levels, at)
        known = {alert.name: alert.level for alert in alerts if alert.level is not Level.UNKNOWN}
        news = _changed([alert for alert in alerts if alert.name in known], memory.known, at)
        told = {change.name for change in news}
        for change in changes:
            _log(change, news=change.name in told)
        unsent = self._sent([*memory.unsent, *(c for c in news if RAISED & {Level(c.before), Level(c.level)})])
        history = [*memory.history, *changes][-HISTORY_SIZE:]
        self._facts.put_fact(
            FACT,
            json.dumps(
                {
                    "at": at,
                    "levels": {alert.name: alert.level.value for alert in alerts},
                    "known": {**memory.known, **known},
                    "history": [asdict(change) for change in history],
                    "unsent": [asdict(change) for change in unsent],
                }
            ),
        )
        return alerts

    def due(self) -> bool:
        """Whether the last check of any process is about an interval ago."""
        at = self._remembered().at
        if at is None:
            return True
        age = (self._clock() - datetime.fromisoformat(at)).total_seconds()
        return not 0 <= age < self._settings.alert_interval / 2

    def _sent(self, changes: list[Change]) -> list[Change]:
        """What is left to be sent."""
        if self._send is None or not changes or self._send(changes):
            return []
        return changes[-UNSENT_SIZE:]

    def _remembered(self) -> _Memory:
        text = self._facts.get_fact(FACT)
        if text is None:
            return _Memory(None, {}, {}, (), ())
        kept = json.loads(text)
        levels = {name: Level(level) for name, level in kept["levels"].items()}
        known = {name: Level(level) for name, level in kept.get("known", levels).items()}
        return _Memory(
            at=kept["at"],
            levels=levels,
            known={name: level for name, level in known.items() if level is not Level.UNKNOWN},
            history=_changes(kept["history"]),
            unsent=_changes(kept["unsent"]),
        )


def _changed(alerts: Iterable[Alert], before: Mapping[str, Level], at: str) -> list[Change]:
    """Those that have another level than ``before``."""
    return [
        Change(at, alert.name, level.value, alert.level.value, _finite(alert.value), alert.warning, alert.critical)
        for alert in alerts
        if (level := before.get(alert.name, Level.UNKNOWN)) is not alert.level
    ]


def _changes(kept: Iterable[Mapping[str, Any]]) -> tuple[Change, ...]:
    return tuple(Change(**change) for change in kept)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _figures(change: Change) -> dict[str, object]:
    return {key: value for key, value in asdict(change).items() if key not in ("name", "level", "at")}


def _log(change: Change, *, news: bool) -> None:
    """At its severity, but what was ``unknown`` for a while and is as it was before is no news."""
    severity = {Level.CRITICAL: logging.ERROR, Level.WARNING: logging.WARNING}.get(Level(change.level), logging.INFO)
    severity = severity if news else logging.INFO
    log.log(
        severity,
        "%s is %s, it was %s",
        change.name,
        change.level,
        change.before,
        extra={"action": "alerts.change", "alert": change.name, "state": change.level, **_figures(change)},
    )
