"""Prometheus reads every figure under its name, and nothing where nothing was measured."""

from __future__ import annotations

import logging
import math
import socket
import threading
from dataclasses import astuple, fields
from functools import partial
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clock import Clock
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import StoreUnavailable
from ww_core.models import Counts
from ww_core.observability import Metrics, Snapshot
from ww_core.observability.prometheus import PREFIX, TABLE, exposition, names
from ww_core.observability.publish import FileBoard, Publisher, deployment_snapshot
from ww_core.observability.stores import FRESH_SECONDS, Elsewhere, backlog, consolidated
from ww_core.observability.summary import (
    BACKLOG_AGE,
    CLAIMABLE,
    CLAIMED,
    EPISODES,
    GAP,
    POOL_UTIL,
    QUEUE_DEPTH,
    STANDING,
    UPDATE_QUEUE,
)
from ww_core.stores.ports import Standing
from ww_workers.scrape import Scrape, serve


def samples(page: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def busy() -> Metrics:
    metrics = Metrics()
    for stage in ("recall", "store", "lag", 'odd "stage"\n'):
        metrics.observe(stage, 0.1)
    for name in ("attempts", "failures", "embedding_cache_hits", "embedding_cache_total"):
        metrics.increment(name)
    metrics.increment(CLAIMED, 3)
    metrics.increment(CLAIMABLE, 4)
    for name in (GAP, BACKLOG_AGE, QUEUE_DEPTH, UPDATE_QUEUE, EPISODES + "pending", "new.gauge"):
        metrics.set_gauge(name, 0.5)
    for one in fields(Standing):
        metrics.set_gauge(STANDING + one.name, 2.0)
    metrics.peak(POOL_UTIL, 0.5)
    return metrics


def test_every_figure_is_exported_and_every_name_has_a_figure() -> None:
    found = samples(exposition(busy().snapshot(), queues={"ww.embed": 3}))
    assert {name for name, *_ in found} == names()
    exported = {family.name for family in TABLE}
    for field in fields(Snapshot):
        if field.name not in ("stages", "counters", "window", "gauges", "last_failures"):
            assert field.name in exported, f"{field.name} is not exported"
    assert found[PREFIX + "queue_length", "ww.embed"] == 3
    assert found[PREFIX + "episodes", "pending"] == 0.5
    assert found[(PREFIX + "batch_fill",)] == 0.75
    assert found[PREFIX + "gauge", "new.gauge"] == 0.5
    assert [key for key in found if key[0] == PREFIX + "gauge"] == [(PREFIX + "gauge", "new.gauge")]
    assert found[PREFIX + "stage_latency_p95", 'odd "stage"\n'] == pytest.approx(100, rel=0.01)
    assert found[PREFIX + "window_count", "attempts"] == 1


def test_what_was_not_measured_is_absent() -> None:
    page = exposition(Metrics().snapshot())
    assert samples(page) == {(PREFIX + "errors",): 0, (PREFIX + "processes",): 0}
    assert "nan" not in page.lower()


def scraped(directory: Path) -> Scrape:
    """A page of what lies on the board; its own process measures nothing."""
    read = partial(deployment_snapshot, Metrics(), FileBoard(directory))
    return Scrape(Settings(data_dir=directory), read, address="127.0.0.1", port=0)


def test_a_worker_serves_what_all_processes_published(tmp_path: Path) -> None:
    board = FileBoard(tmp_path)
    publisher = Publisher(busy(), board)
    publisher.publish()
    # as another process would have: its own name is told apart from the reader's
    board.put("another", next(tmp_path.glob("*.json")).read_text().replace(publisher._name, "another"))
    next(tmp_path.glob(f"{publisher._name}*")).unlink()
    scrape = scraped(tmp_path)
    try:
        with urlopen(f"http://127.0.0.1:{scrape.port}/metrics", timeout=10) as answer:
            found = samples(answer.read().decode())
        assert found[(PREFIX + "recall_latency_p50",)] == pytest.approx(100, rel=0.01)
        assert found[(PREFIX + "processes",)] == 1
        with pytest.raises(HTTPError, match="404") as missing:
            urlopen(f"http://127.0.0.1:{scrape.port}/", timeout=10)
        missing.value.close()
    finally:
        scrape.close()


def test_the_settings_say_where_figures_are_served(tmp_path: Path) -> None:
    assert serve(Settings(data_dir=tmp_path)) is None
    free = scraped(tmp_path)
    free.close()
    asked = Settings(data_dir=tmp_path, metrics_port=free.port, metrics_address="127.0.0.1")
    served = serve(asked)
    assert served is not None
    assert served.port == free.port
    assert serve(asked) is None, "a second worker of the machine leaves it to the first"
    served.close()
    Deployment.of(asked).close()


def test_only_a_port_that_others_hold_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = scraped(tmp_path)
    with caplog.at_level(logging.INFO, logger="ww_workers.scrape"):
        for changes in ({}, {"namespace": "others"}, {"data_dir": tmp_path / "elsewhere"}):
            assert serve(Settings(**{"data_dir": tmp_path, "metrics_port": first.port, **changes})) is None
        first.close()
        with socket.create_server(("127.0.0.1", first.port)) as other:
            threading.Thread(target=lambda: other.accept()[0].close(), daemon=True).start()
            assert serve(Settings(data_dir=tmp_path, metrics_port=first.port)) is None
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "WARNING", "WARNING"]
    assert "by another worker" in caplog.messages[0]
    assert "Address already in use" in caplog.messages[1]


class Held:
    """What a graph store holds."""

    def __init__(self) -> None:
        self.stands = Standing(2, clusters=4, merged=1, split=2, considered=8, noise=2, sampled=5, seconds=0.5)

    def counts(self, session_id: str | None = None) -> Counts:
        return Counts(1, 1, 0, 0, 0, 0)

    def oldest_pending(self) -> float | None:
        return None

    def standing(self) -> Standing:
        return self.stands


def test_a_store_that_is_slow_to_count_is_asked_less_often() -> None:
    clock, looks = Clock(), [0]

    class Slow(Held):
        def counts(self, session_id: str | None = None) -> Counts:
            looks[0] += 1
            clock.now += 0.5
            return super().counts()

    read = backlog(Slow(), clock=clock).probes()[EPISODES + "pending"]
    for _ in range(100):
        assert read() == 1
        clock.now += 1
    assert looks[0] == 2, "half a second every fifty"


def test_a_store_that_is_away_is_asked_once_for_all_of_its_gauges_and_soon_again() -> None:
    clock, held = Clock(), Held()

    class Away(Held):
        looks = 0

        def standing(self) -> Standing:
            self.looks += 1
            clock.now += 20
            if self.looks == 1:
                raise StoreUnavailable("away")
            return held.standing()

    away = Away()
    probes = consolidated(away, clock=clock).probes()
    assert all(math.isnan(read()) for read in probes.values())
    assert away.looks == 1
    clock.now += FRESH_SECONDS
    assert [read() for read in probes.values()] == [float(value) for value in astuple(held.standing())]
    assert away.looks == 2


def test_before_the_first_run_there_are_no_figures_of_consolidation() -> None:
    metrics, held = Metrics(), Held()
    for name, read in consolidated(held).probes().items():
        metrics.probe(name, read)
    found = metrics.snapshot()
    assert (found.clusters, found.clusters_merged, found.unclustered_share) == (4, 1, 0.25)
    held.stands = Standing()
    metrics = Metrics()
    for name, read in consolidated(held).probes().items():
        metrics.probe(name, read)
    found = metrics.snapshot()
    assert all(math.isnan(value) for value in (found.clusters, found.clusters_split, found.unclustered_share))
    assert math.isnan(found.consolidation_seconds)


def test_a_server_that_does_not_answer_holds_up_no_other_figure() -> None:
    answers, asked = threading.Event(), []

    def read() -> float:
        asked.append(1)
        answers.wait(60)
        return 3.0

    gauge = Elsewhere(read, patience=0.05)
    assert math.isnan(gauge())
    assert math.isnan(gauge())
    assert len(asked) == 1, "one question at a time"
    answers.set()
    gauge = Elsewhere(read, patience=30)
    assert gauge() == 3.0
    broken = Elsewhere(lambda: 1 / 0, patience=30)
    assert math.isnan(broken())


def test_a_store_says_how_much_waits_in_it(tmp_path: Path) -> None:
    deployment = Deployment(Settings(data_dir=tmp_path))
    deployment.ingest.store("one")
    deployment.watch_stores()
    gauges = deployment.metrics.snapshot().gauges
    assert gauges[EPISODES + "pending"] == gauges[EPISODES + "acknowledged"] == 1
    assert gauges[BACKLOG_AGE] >= 0
    deployment.close()
    assert BACKLOG_AGE not in deployment.metrics.snapshot().gauges
