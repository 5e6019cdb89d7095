"""Levels follow the thresholds without flapping."""

from __future__ import annotations

from typing import Any

import pytest

from ww_core.config import ALERTS, Settings
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.observability import Metrics
from ww_core.observability.alerts import Alert, Level, evaluate
from ww_core.observability.summary import CACHE_HITS, CACHE_TOTAL, POOL_UTIL

BEFORE: dict[str, Level] = {}


def settings(**given: Any) -> Settings:
    return Settings(**{"alert_min_samples": 10, **given})


def recalls(ms: float, n: int = 20) -> Metrics:
    metrics = Metrics()
    for _ in range(n):
        metrics.observe("recall", ms / 1000)
    return metrics


def lookups(rate: float) -> Metrics:
    metrics = Metrics()
    metrics.increment(CACHE_HITS, round(1000 * rate))
    metrics.increment(CACHE_TOTAL, 1000)
    return metrics


def pool(share: float, n: int = 20) -> Metrics:
    metrics = Metrics()
    for _ in range(n - 1):
        metrics.peak(POOL_UTIL, 0.1)
    metrics.peak(POOL_UTIL, share)
    return metrics


def failures(share: float) -> Metrics:
    metrics = Metrics()
    for i in range(200):
        try:
            with metrics.operation("store"):
                if i < 200 * share:
                    raise StoreUnavailable("down")
        except StoreUnavailable:
            pass
    return metrics


MAKE = {"recall_p95": recalls, "cache_hit_rate": lookups, "pool_utilization": pool, "error_rate": failures}


def level(name: str, metrics: Metrics, before: Level = Level.UNKNOWN, **given: Any) -> Level:
    found: dict[str, Alert] = {a.name: a for a in evaluate(metrics.snapshot(), settings(**given), {name: before})}
    return found[name].level


@pytest.mark.parametrize(
    ("name", "fine", "warning", "critical"),
    [
        ("recall_p95", 190, 210, 510),
        ("cache_hit_rate", 0.71, 0.69, 0.49),
        ("pool_utilization", 0.79, 0.81, 0.96),
        ("error_rate", 0.01, 0.02, 0.06),
    ],
)
def test_the_guides_thresholds_decide(name: str, fine: float, warning: float, critical: float) -> None:
    make = MAKE[name]
    assert [level(name, make(value)) for value in (fine, warning, critical)] == ["ok", "warning", "critical"]


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        ("recall_p95", 460, 440),
        ("cache_hit_rate", 0.54, 0.56),
        ("pool_utilization", 0.87, 0.84),
        ("error_rate", 0.05, 0.04),
    ],
)
def test_a_raised_alert_falls_only_when_the_figure_is_clearly_better(name: str, within: float, beyond: float) -> None:
    make = MAKE[name]
    assert level(name, make(within)) == "warning"
    assert level(name, make(within), Level.CRITICAL) == "critical"
    assert level(name, make(beyond), Level.CRITICAL) == "warning"
    assert level(name, make(within), Level.CRITICAL, alert_hysteresis=0) == "warning"


@pytest.mark.parametrize(
    ("seen", "mild", "worst"),
    [
        (510, {"alert_recall_p95_warning": 900}, {"alert_recall_p95_critical": 1000}),
        (0.4, {"alert_cache_hit_rate_warning": 0.3}, {"alert_cache_hit_rate_critical": 0.2}),
        (0.97, {"alert_pool_utilization_warning": 0.99}, {"alert_pool_utilization_critical": 1.0}),
        (0.3, {"alert_error_rate_warning": 0.4}, {"alert_error_rate_critical": 0.5}),
    ],
)
def test_settings_move_the_thresholds(seen: float, mild: dict[str, float], worst: dict[str, float]) -> None:
    (key,) = mild
    name = key.removeprefix("alert_").removesuffix("_warning")
    metrics = MAKE[name](seen)
    assert [level(name, metrics, **given) for given in ({}, worst, worst | mild)] == ["critical", "warning", "ok"]


@pytest.mark.parametrize("name", ALERTS)
def test_a_warning_that_comes_after_critical_is_refused(name: str) -> None:
    value = 0.1 if ALERTS[name] else 600 if name == "recall_p95" else 0.99
    with pytest.raises(ConfigurationError, match=f"alert_{name}_warning"):
        settings(**{f"alert_{name}_warning": value})


def test_too_few_samples_and_nothing_measured_are_unknown() -> None:
    assert level("recall_p95", recalls(900, n=9)) == "unknown"
    assert level("recall_p95", recalls(900, n=9), alert_min_samples=9) == "critical"
    assert level("pool_utilization", pool(0.99, n=9)) == "unknown"
    assert level("pool_utilization", pool(0.99, n=10)) == "critical"
    levels = {alert.level for alert in evaluate(Metrics().snapshot(), settings(), BEFORE)}
    assert levels == {Level.UNKNOWN}


def test_a_raised_hit_rate_says_what_to_set_where_queries_rarely_repeat() -> None:
    def cache(rate: float, **given: Any) -> Alert:
        return evaluate(lookups(rate).snapshot(), settings(**given), BEFORE)[1]

    for rate, found in ((0.0, Level.CRITICAL), (0.6, Level.WARNING)):
        alert = cache(rate)
        assert alert.level is found
        for key in ("alert_cache_hit_rate_warning", "alert_cache_hit_rate_critical", "embedding_cache_size"):
            assert key in alert.hint
    assert cache(0.9).hint == ""
    followed = cache(0.0, alert_cache_hit_rate_warning=0, alert_cache_hit_rate_critical=0)
    assert (followed.level, followed.hint) == (Level.OK, "")
    assert [a.hint for a in evaluate(failures(0.5).snapshot(), settings(), BEFORE)] == [""] * 4
