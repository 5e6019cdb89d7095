"""What became of the alerts since the last check of any process: kept, logged, and told to somebody."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Protocol

from ww_core.config import Settings
from ww_core.observability.alerts import RAISED, Alert, Level, evaluate, hint_of
from ww_core.observability.metrics import WINDOW_SECONDS, Snapshot

log = logging.getLogger(__name__)

FACT = "alerts"
"""Fact in the graph store: the levels at the last check, the changes before it, and those not sent yet."""
HISTORY_SIZE = 100
"""Changes of a level that are kept."""
UNSENT_SIZE = 20
"""Changes kept for a webhook that does not answer; older ones are no news any more."""
QUIET_SECONDS = WINDOW_SECONDS
"""A raised alert that has been ``unknown`` for so long is over: as long as the rules of Prometheus keep firing."""
NO_TRAFFIC = "no traffic"
"""Why an alert is over though nobody saw its figure get better."""


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
    reason: str = ""
    """NO_TRAFFIC where the alert is over for want of measurements; empty where the figure decides."""


class Facts(Protocol):
    """The part of the graph store that remembers."""

    def get_fact(self, key: str) -> str | None: ...

    def put_fact(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the last check left; nothing before the first."""

    at: str | None = None
    levels: Mapping[str, Level] = field(default_factory=dict)
    known: Mapping[str, Level] = field(default_factory=dict)
    """The last level of each that was not ``unknown``: too few samples do not end an alert at once."""
    known_at: Mapping[str, str] = field(default_factory=dict)
    """When each of those was last found."""
    history: tuple[Change, ...] = ()
    unsent: tuple[Change, ...] = ()

    @classmethod
    def load(cls, text: str | None) -> _Memory:
        """From what ``dump`` wrote, or an earlier version did."""
        if text is None:
            return cls()
        kept = json.loads(text)
        levels = {name: Level(level) for name, level in kept["levels"].items()}
        known = {name: Level(level) for name, level in kept.get("known", levels).items()}
        known = {name: level for name, level in known.items() if level is not Level.UNKNOWN}
        return cls(
            at=kept["at"],
            levels=levels,
            known=known,
            known_at={**dict.fromkeys(known, kept["at"]), **kept.get("known_at", {})},
            history=tuple(Change(**change) for change in kept["history"]),
            unsent=tuple(Change(**change) for change in kept["unsent"]),
        )

    def dump(self) -> str:
        return json.dumps(asdict(self))

    def quiet(self, name: str, now: datetime) -> bool:
        """Whether the alert was raised when it was last known, and that is long ago, or the clock was set back."""
        if self.known.get(name) not in RAISED:
            return False
        return abs(_seconds(self.known_at[name], now)) >= QUIET_SECONDS


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

        What becomes ``unknown`` keeps the level it had, and nobody is told before it has another one, or has been
        ``unknown`` for QUIET_SECONDS: then it is over. Several processes may check one deployment: each compares with
        what the last of them found.
        """
        memory, now = self._remembered(), self._clock()
        alerts, at = evaluate(self._read(), self._settings, memory.known), now.isoformat()
        known = [alert for alert in alerts if alert.level is not Level.UNKNOWN]
        over = [alert for alert in alerts if alert.level is Level.UNKNOWN and memory.quiet(alert.name, now)]
        ended = _changed(over, memory.known, at, NO_TRAFFIC)
        news = [*_changed(known, memory.known, at), *ended]
        changes = [*_changed([alert for alert in alerts if alert not in over], memory.levels, at), *ended]
        told = {change.name for change in news}
        for change in changes:
            _log(change, news=change.name in told)
        unsent = self._sent([*memory.unsent, *(c for c in news if RAISED & {Level(c.before), Level(c.level)})])
        kept = memory.known.keys() - {alert.name for alert in (*known, *over)}
        self._facts.put_fact(
            FACT,
            _Memory(
                at=at,
                levels={alert.name: alert.level for alert in alerts},
                known={name: memory.known[name] for name in kept} | {alert.name: alert.level for alert in known},
                known_at={name: memory.known_at[name] for name in kept} | {alert.name: at for alert in known},
                history=(*memory.history, *changes)[-HISTORY_SIZE:],
                unsent=tuple(unsent),
            ).dump(),
        )
        return alerts

    def due(self) -> bool:
        """Whether the last check of any process is about an interval ago."""
        at = self._remembered().at
        return at is None or not 0 <= _seconds(at, self._clock()) < self._settings.alert_interval / 2

    def _sent(self, changes: list[Change]) -> list[Change]:
        """What is left to be sent."""
        if self._send is None or not changes or self._send(changes):
            return []
        return changes[-UNSENT_SIZE:]

    def _remembered(self) -> _Memory:
        return _Memory.load(self._facts.get_fact(FACT))


def _changed(alerts: Iterable[Alert], before: Mapping[str, Level], at: str, reason: str = "") -> list[Change]:
    """Those that have another level than ``before``."""
    return [
        Change(
            at, alert.name, level.value, alert.level.value, _finite(alert.value), alert.warning, alert.critical, reason
        )
        for alert in alerts
        if (level := before.get(alert.name, Level.UNKNOWN)) is not alert.level
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _seconds(since: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds()


def _log(change: Change, *, news: bool) -> None:
    """At its severity, but what was ``unknown`` for a while and is as it was before is no news."""
    severity = {Level.CRITICAL: logging.ERROR, Level.WARNING: logging.WARNING}.get(Level(change.level), logging.INFO)
    said = {"name", "level", "at", *(() if change.reason else ("reason",))}
    figures = {key: value for key, value in asdict(change).items() if key not in said}
    hint = hint_of(change.name, Level(change.level))
    log.log(
        severity if news else logging.INFO,
        "%s is %s, it was %s%s",
        change.name,
        change.level,
        change.before,
        f" ({hint})" if hint else "",
        extra={"action": "alerts.change", "alert": change.name, "state": change.level, **figures},
    )
