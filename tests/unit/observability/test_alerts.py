"""Levels follow the thresholds without flapping, changes are kept, and somebody is told in bounded time."""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from ww_core.config import ALERTS, Settings
from ww_core.deployment import Deployment
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.observability import Metrics
from ww_core.observability.alerts import Alert, Level, evaluate
from ww_core.observability.changes import FACT, HISTORY_SIZE, NO_TRAFFIC, QUIET_SECONDS, AlertWatch, Change
from ww_core.observability.summary import CACHE_HITS, CACHE_TOTAL, POOL_UTIL
from ww_core.observability.watch import alert_watch
from ww_core.observability.webhook import Webhook

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
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


class Facts(dict[str, str]):
    def get_fact(self, key: str) -> str | None:
        return self.get(key)

    def put_fact(self, key: str, value: str) -> None:
        self[key] = value


class Watched:
    """A watch whose figures, time and listener are the test's."""

    def __init__(self, **given: Any) -> None:
        self.metrics = recalls(10)
        self.now = NOON
        self.sent: list[list[Change]] = []
        self.answers = True
        self.facts = Facts()
        self.watch = AlertWatch(
            self.facts, settings(**given), read=lambda: self.metrics.snapshot(), clock=lambda: self.now, send=self._send
        )

    def _send(self, changes: Sequence[Change]) -> bool:
        self.sent.append(list(changes))
        return self.answers

    def check(self, ms: float, after: float = 60, n: int = 20) -> str:
        self.now += timedelta(seconds=after)
        self.metrics = recalls(ms, n)
        return self.watch.check()[0].level.value


def test_a_change_is_kept_logged_and_sent_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with caplog.at_level(logging.INFO, logger="ww_core.observability.changes"):
        assert [watched.check(ms) for ms in (10, 600, 610, 470, 10)] == ["ok", "critical", "critical", "critical", "ok"]
    assert [(c.before, c.level) for c in watched.watch.history()] == [
        ("unknown", "ok"),
        ("ok", "critical"),
        ("critical", "ok"),
    ]
    assert [[c.level for c in changes] for changes in watched.sent] == [["critical"], ["ok"]]
    assert [record.levelname for record in caplog.records] == ["INFO", "ERROR", "INFO"]
    assert watched.watch.history()[1].value == pytest.approx(600, rel=0.01)


def test_too_few_samples_in_between_neither_end_an_alert_nor_tell_of_it(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(alert_min_samples=20)
    checks = [(600, 25), (600, 19), (470, 25), (600, 19), (600, 25)]
    with caplog.at_level(logging.WARNING, logger="ww_core.observability.changes"):
        found = [watched.check(ms, n=n) for ms, n in checks]
    assert found == ["critical", "unknown", "critical", "unknown", "critical"]
    assert [[(c.before, c.level) for c in changes] for changes in watched.sent] == [[("unknown", "critical")]]
    assert len(caplog.records) == 1
    assert [c.level for c in watched.watch.history()] == found, "for people it is kept"
    assert [watched.check(ms, n=n) for ms, n in [(10, 19), (300, 25), (10, 19), (10, 25)]] == [
        *("unknown", "warning", "unknown", "ok")
    ]
    assert [[(c.before, c.level) for c in changes] for changes in watched.sent[1:]] == [
        [("critical", "warning")],
        [("warning", "ok")],
    ]


def test_an_alert_that_traffic_left_is_over_after_a_while_and_everybody_hears_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watched = Watched()
    with caplog.at_level(logging.INFO, logger="ww_core.observability.changes"):
        assert watched.check(600) == "critical"
        assert [watched.check(600, n=n, after=QUIET_SECONDS / 2 - 1) for n in (5, 0)] == ["unknown", "unknown"]
        assert len(watched.sent) == 1, "a pause is no end"
        assert [watched.check(600, n=0, after=1) for _ in range(5)] == ["unknown"] * 5
    (end,) = watched.sent[1]
    assert (end.name, end.before, end.level, end.value, end.reason) == (
        *("recall_p95", "critical", "unknown", None),
        NO_TRAFFIC,
    )
    assert len(watched.sent) == 2
    assert watched.watch.history()[-1] == end
    assert [(r.levelname, getattr(r, "reason", "")) for r in caplog.records] == [
        *(("ERROR", ""), ("INFO", "")),
        ("INFO", NO_TRAFFIC),
    ]
    assert watched.check(470) == "warning", "nothing is left to fall late"
    assert [(c.before, c.level, c.reason) for c in watched.sent[2]] == [("unknown", "warning", "")]


def test_what_nobody_watched_meanwhile_is_over_at_the_next_check_and_the_history_says_it_once() -> None:
    watched = Watched()
    watched.check(600)
    watched.answers = False
    assert watched.check(600, n=0, after=3600) == "unknown"
    assert [(c.before, c.level, c.reason) for c in watched.watch.history()] == [
        ("unknown", "critical", ""),
        ("critical", "unknown", NO_TRAFFIC),
    ]
    watched.answers = True
    watched.check(600, n=0)
    assert watched.sent[-1] == [watched.watch.history()[-1]], "sent again to who did not take it"


def test_a_figure_that_was_fine_ends_without_a_word() -> None:
    watched = Watched()
    watched.check(10)
    for _ in range(3):
        assert watched.check(10, n=0, after=QUIET_SECONDS) == "unknown"
    assert watched.sent == []
    assert [c.level for c in watched.watch.history()] == ["ok", "unknown"]


@pytest.mark.parametrize(("after", "told"), [(-60, []), (-2 * QUIET_SECONDS, [NO_TRAFFIC])])
def test_clocks_that_differ_end_no_alert_and_one_that_was_set_back_keeps_none(after: float, told: list[str]) -> None:
    watched = Watched()
    watched.check(600)
    watched.check(600, n=0, after=after)
    assert [change.reason for changes in watched.sent[1:] for change in changes] == told


def test_what_an_earlier_version_kept_is_understood() -> None:
    watched = Watched()
    levels = {"recall_p95": "critical", "error_rate": "unknown"}
    change = {"at": NOON.isoformat(), "name": "recall_p95", "before": "ok", "level": "critical", "value": 600.0}
    kept = {"levels": levels, "history": [change | {"warning": 200.0, "critical": 500.0}], "unsent": []}
    watched.facts[FACT] = json.dumps({"at": NOON.isoformat(), **kept})
    assert watched.check(470) == "critical"
    assert watched.sent == []
    assert watched.check(600, n=0, after=QUIET_SECONDS) == "unknown"
    assert [change.reason for change in watched.watch.history()] == ["", NO_TRAFFIC]


def test_what_a_webhook_did_not_take_is_sent_with_the_next_check() -> None:
    watched = Watched()
    watched.answers = False
    watched.check(600)
    watched.answers = True
    watched.check(600)
    watched.check(600)
    assert [[c.level for c in changes] for changes in watched.sent] == [["critical"], ["critical"]]


def test_a_look_changes_nothing_and_knows_the_last_check() -> None:
    watched = Watched()
    watched.check(600)
    kept = dict(watched.facts)
    watched.metrics = recalls(470)
    assert watched.watch.look()[0].level == "critical"
    assert watched.facts == kept
    assert len(watched.sent) == 1


def test_history_is_bounded() -> None:
    watched = Watched()
    for i in range(2 * HISTORY_SIZE):
        watched.check(600 if i % 2 else 10)
    assert len(watched.watch.history()) == HISTORY_SIZE
    assert len(watched.facts[FACT]) < 50_000


def test_a_check_by_another_process_lately_is_enough() -> None:
    watched = Watched(alert_interval=60)
    assert watched.watch.due()
    watched.check(10)
    watched.now += timedelta(seconds=29)
    assert not watched.watch.due()
    watched.now += timedelta(seconds=2)
    assert watched.watch.due()
    watched.now -= timedelta(days=1)
    assert watched.watch.due(), "a clock that was set back stops no alert"


class Listener:
    """A real HTTP server that answers with ``status``."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.status = 204
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.bodies.append(json.loads(body))
                self.send_response(listener.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return None

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


CHANGE = Change(NOON.isoformat(), "error_rate", "ok", "critical", 0.5, 0.01, 0.05)


def test_a_webhook_gets_the_changes_as_json(listener: Listener) -> None:
    webhook = Webhook(listener.url, namespace="ww", timeout=5)
    assert webhook([CHANGE])
    assert listener.bodies[0]["namespace"] == "ww"
    assert listener.bodies[0]["alerts"][0]["level"] == "critical"
    listener.status = 500
    assert not webhook([CHANGE])


def test_a_webhook_that_never_answers_costs_its_timeout_and_raises_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        assert not Webhook(url, namespace="ww", timeout=0.3)([CHANGE])
        assert time.monotonic() - started < 3
    assert not Webhook(url, namespace="ww", timeout=0.3)([CHANGE])


def test_the_settings_say_who_is_told_and_how_long_that_may_take(tmp_path: Path, listener: Listener) -> None:
    told = Deployment(settings(data_dir=tmp_path, alert_webhook=listener.url))
    told.metrics.reset()
    for _ in range(20):
        told.metrics.observe("recall", 3.0)
    try:
        alert_watch(told).check()
        # other figures of this process may have earned an alert too
        assert "recall_p95" in [change["name"] for change in listener.bodies[0]["alerts"]]
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            kept = Deployment(settings(data_dir=tmp_path, alert_webhook=url, alert_webhook_timeout=0.2))
            kept.graph.put_fact(FACT, json.dumps({"at": NOON.isoformat(), "levels": {}, "history": [], "unsent": []}))
            started = time.monotonic()
            alert_watch(kept).check()
            assert time.monotonic() - started < 3
            kept.close()
    finally:
        told.metrics.reset()
        told.close()


def test_the_webhooks_address_is_a_secret_and_must_be_http() -> None:
    shown = settings(alert_webhook="https://hooks.example.com/T00/secret", alert_webhook_timeout=1).shown()
    assert shown["alert_webhook"] == "***"
    with pytest.raises(ConfigurationError, match="alert_webhook") as refused:
        settings(alert_webhook="file:///etc/passwd")
    assert "passwd" not in str(refused.value)


def test_a_value_that_is_unknown_is_no_number_in_the_history() -> None:
    watched = Watched()
    watched.check(600)
    watched.now += timedelta(seconds=60)
    watched.metrics = Metrics()
    (alert, *_) = watched.watch.check()
    assert alert.level is Level.UNKNOWN
    assert math.isnan(alert.value)
    assert watched.watch.history()[-1].value is None
