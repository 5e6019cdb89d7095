"""What becomes of an alert from one check to the next is kept, and told once."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.observability.test_alerts import lookups, recalls, settings
from ww_core.observability import Metrics
from ww_core.observability.alerts import Level
from ww_core.observability.changes import FACT, HISTORY_SIZE, NO_TRAFFIC, QUIET_SECONDS, AlertWatch, Change

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


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


def test_what_to_make_of_a_raised_hit_rate_is_logged_with_it(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    with caplog.at_level(logging.INFO, logger="ww_core.observability.changes"):
        for rate in (0.0, 0.9):
            watched.metrics = lookups(rate)
            watched.watch.check()
    raised, fallen = (record.getMessage() for record in caplog.records if "cache" in record.getMessage())
    assert raised.startswith("cache_hit_rate is critical, it was unknown (where queries rarely repeat")
    assert fallen == "cache_hit_rate is ok, it was critical"


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


def test_a_value_that_is_unknown_is_no_number_in_the_history() -> None:
    watched = Watched()
    watched.check(600)
    watched.now += timedelta(seconds=60)
    watched.metrics = Metrics()
    (alert, *_) = watched.watch.check()
    assert alert.level is Level.UNKNOWN
    assert math.isnan(alert.value)
    assert watched.watch.history()[-1].value is None
