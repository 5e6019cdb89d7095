"""What one process suffers, ``ww alerts`` shows in another."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from neo4j import Transaction

from tests.contract.graphs import neo4j_settings
from tests.processes import ROOT, clean_environment, until
from tests.support.clock import Clock
from tests.unit.maintenance.conftest import NOON, Bench
from tests.unit.observability.test_webhook import Listener
from ww_core.deployment import Deployment
from ww_core.observability import Metrics, process_metrics
from ww_core.observability.changes import NO_TRAFFIC, AlertWatch
from ww_core.observability.metrics import SLICES, WINDOW_SECONDS
from ww_core.observability.watch import figures_of
from ww_core.stores.servers.neo4j import Neo4jGraphStore

APPLICATION = """
import sys, threading
from ww import hooks
from ww.memory.episodic import EpisodicMemory

waiting = 0.6

@hooks.before_recall
def wait(request):
    threading.Event().wait(waiting)
    return request

memory = EpisodicMemory(session_id="s")
memory.sync.store("The deploy of api-7 failed: out of disk")
memory.sync.flush(timeout=60)
for i in range(4):
    memory.sync.recall(f"why did deploy {i} fail")
print("slow", flush=True)
sys.stdin.readline()
waiting = 0
for _ in range(150):
    memory.sync.recall("why did the deploy fail")
print("quick", flush=True)
sys.stdin.readline()
memory.close()
"""


def test_slow_recalls_of_an_application_turn_alerts_critical_elsewhere_and_ok_again(tmp_path: Path) -> None:
    listener = Listener()
    environment = clean_environment(
        T4DM_DATA_DIR=str(tmp_path / "memory"),
        T4DM_ALERT_MIN_SAMPLES="4",
        T4DM_ALERT_INTERVAL="1",
        T4DM_ALERT_WEBHOOK=listener.url,
        PYTHONPATH=str(ROOT),
    )
    codes: list[int] = []

    def alerts(*options: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "ww.cli", "alerts", "--json", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        codes.append(done.returncode)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def levels() -> dict[str, str]:
        return {alert["name"]: alert["level"] for alert in alerts()["alerts"]}

    assert set(levels().values()) == {"unknown"}
    assert codes == [0]
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert application.stdin is not None
    assert application.stdout is not None
    try:
        assert application.stdout.readline() == "slow\n"
        until(lambda: levels()["recall_p95"] == "critical", what="recall_p95 is critical")
        assert codes[-1] == 1
        found = levels()
        assert found["cache_hit_rate"] == "critical", "every query was a new one"
        assert (found["pool_utilization"], found["error_rate"]) == ("unknown", "ok")
        until(lambda: any(c["level"] == "critical" for c in alerts("--history")["history"]), what="a check kept it")
        application.stdin.write("\n")
        application.stdin.flush()
        assert application.stdout.readline() == "quick\n"
        until(lambda: (now := levels())["recall_p95"] == now["cache_hit_rate"] == "ok", what="both are ok")
        assert codes[-1] == 0
        told = lambda: [(c["name"], c["level"]) for body in listener.bodies for c in body["alerts"]]  # noqa: E731
        until(lambda: ("recall_p95", "ok") in told(), what="the webhook heard the end")
        assert told().index(("recall_p95", "critical")) < told().index(("recall_p95", "ok"))
    finally:
        application.stdin.close()
        application.wait(60)
        application.stdout.close()
        listener.close()
    assert application.returncode == 0


def test_poison_texts_turn_the_error_rate_critical_until_the_window_has_passed(quick_path: Path) -> None:
    bench = Bench(quick_path)
    bench.metrics = Metrics(clock=bench.clock)
    watch = AlertWatch(
        bench.graph,
        bench.settings.replace(alert_min_samples=10),
        read=bench.metrics.snapshot,
        clock=lambda: NOON + timedelta(seconds=bench.seconds),
    )

    def poison(texts: list[str]) -> None:
        if any(text.startswith("poison") for text in texts):
            raise ValueError("this text cannot be embedded")

    def level() -> str:
        return {alert.name: alert.level.value for alert in watch.check()}["error_rate"]

    bench.embedder.before = poison
    bench.store(*(f"fine {n}" for n in range(20)), *(f"poison {n}" for n in range(5)))
    bench.drain().run(max_seconds=30)
    assert level() == "critical"
    bench.seconds += WINDOW_SECONDS * (1 + 1 / SLICES)
    assert level() == "unknown"
    assert [c.reason for c in watch.history() if c.name == "error_rate"] == ["", NO_TRAFFIC]
    for n in range(20):
        with bench.metrics.operation("store"):
            bench.store(f"good {n}")
    bench.drain().run(max_seconds=30)
    assert level() == "ok"
    assert [c.level for c in watch.history() if c.name == "error_rate"] == ["critical", "unknown", "ok"]
    bench.close()


def test_open_transactions_turn_the_pool_utilization_critical_until_the_window_has_passed(
    neo4j_server: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = neo4j_settings(
        f"{neo4j_server[0]} {neo4j_server[1]} t{uuid4().hex[:12]}", neo4j_pool_size=4, data_dir=tmp_path
    ).replace(alert_min_samples=8)
    process_metrics().reset()
    clock = Clock()
    monkeypatch.setattr(process_metrics(), "_clock", clock)
    busy, watcher = Deployment(settings), Neo4jGraphStore(settings)
    graph = busy.graph
    assert isinstance(graph, Neo4jGraphStore)
    watch = AlertWatch(watcher, settings, read=lambda: figures_of(busy), clock=lambda: datetime.now(UTC))
    all_held, release = threading.Barrier(5), threading.Event()

    def hold(tx: Transaction) -> None:
        tx.run("RETURN 1").consume()
        all_held.wait(30)
        assert release.wait(60)

    def level() -> str:
        return {alert.name: alert.level.value for alert in watch.check()}["pool_utilization"]

    assert level() == "unknown"
    for _ in range(4):
        graph.ping()
    assert level() == "ok"
    with ThreadPoolExecutor(4) as pool:
        holders = [pool.submit(graph._server.read, hold) for _ in range(4)]
        try:
            all_held.wait(30)
            assert level() == "critical"
        finally:
            release.set()
        for holder in holders:
            holder.result()
    assert level() == "critical", "a minute without a look between two checks hides nothing"
    clock.now += WINDOW_SECONDS * (1 + 1 / SLICES)
    for _ in range(4):
        graph.ping()
    assert level() == "ok"
    assert [c.level for c in watch.history() if c.name == "pool_utilization"] == ["ok", "critical", "ok"]
    watcher.close()
    busy.close()
