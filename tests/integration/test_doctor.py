"""``ww doctor`` names each fault when it is made on purpose."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.processes import RedisServer, Worker, clean_environment, until
from ww_core.config import Settings
from ww_core.deployment import GRAPH_FILE, Deployment
from ww_core.models import Episode
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.embedded.vectors import EdgeVectorStore
from ww_core.stores.ports import Fingerprint, Queue
from ww_core.stores.servers.neo4j import migrations
from ww_workers.doctor import Finding, examine
from ww_workers.settings import BEAT_TICK


def _examined(settings: Settings) -> dict[str, Finding]:
    deployment = Deployment(settings)
    try:
        found = {finding.name: finding for finding in examine(deployment, look_seconds=0.05)}
    finally:
        deployment.close()
    for finding in found.values():
        assert not finding.message.startswith(f"{finding.name}:"), "the name is printed before the message"
    return found


def _settings(data_dir: Path, **more: object) -> Settings:
    return Settings.load(data_dir=data_dir, **more)


def test_a_fresh_memory_is_well(tmp_path: Path) -> None:
    found = _examined(_settings(tmp_path / "memory"))
    assert [finding for finding in found.values() if not finding.ok] == []


def test_a_schema_of_a_newer_version_is_named(tmp_path: Path) -> None:
    settings = _settings(tmp_path)
    _examined(settings)
    with sqlite3.connect(tmp_path / GRAPH_FILE) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    found = _examined(settings)["graph store"]
    assert not found.ok
    assert "999" in found.message


def test_a_schema_of_a_newer_version_on_neo4j_is_named(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, password, namespace = location.split(" ")
    server = {"neo4j_uri": uri, "neo4j_password": password, "namespace": namespace}
    assert _examined(_settings(tmp_path, **server))["graph store"].ok
    monkeypatch.setattr(migrations, "scripts", tuple)
    found = _examined(_settings(tmp_path, **server))["graph store"]
    assert not found.ok
    assert "knows versions up to 0" in found.message


def test_points_of_another_model_are_named(tmp_path: Path) -> None:
    other = EdgeVectorStore.open(tmp_path, namespace="ww")
    other.ensure(Fingerprint("other-model", "1", 384, "mean", True))
    other.close()
    found = _examined(_settings(tmp_path))["vector store"]
    assert not found.ok
    assert "other-model" in found.message


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    found = _examined(_settings(tmp_path, embedding_model="/nowhere/model"))["model"]
    assert not found.ok
    assert "/nowhere/model" in found.message


def test_a_backlog_that_does_not_move_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    graph = SqliteGraphStore(tmp_path / GRAPH_FILE, clock=lambda: long_ago)
    graph.add([Episode("left behind", "e1", timestamp=long_ago)])
    graph.close()
    found = _examined(_settings(tmp_path))["backlog"]
    assert not found.ok
    assert "1 waiting" in found.message


def test_a_data_directory_open_to_others_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    found = _examined(_settings(tmp_path))["data directory"]
    assert not found.ok
    assert "chmod 700" in found.hint


def test_a_silent_broker_is_named_once_and_without_its_password(tmp_path: Path) -> None:
    found = _examined(_settings(tmp_path / "m", redis_url="redis://:hunter2@127.0.0.1:1/0"))
    bad = [finding for finding in found.values() if not finding.ok]
    assert [finding.name for finding in bad] == ["broker"]
    assert "hunter2" not in f"{bad}"


def test_queues_that_nobody_consumes_and_a_missing_beat_are_named(tmp_path: Path, redis_server: RedisServer) -> None:
    found = _examined(_settings(tmp_path / "m", redis_url=redis_server.url))
    for queue in Queue:
        assert not found[f"queue {queue.value}"].ok
    assert not found["beat"].ok
    assert "ww beat" in found["beat"].hint


def test_a_redis_that_evicts_is_named(tmp_path: Path, redis_server: RedisServer) -> None:
    settings = _settings(tmp_path / "m", redis_url=redis_server.url)
    assert _examined(settings)["eviction"].ok
    redis_server.client().config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = _examined(settings)["eviction"]
    finally:
        redis_server.client().config_set("maxmemory-policy", "noeviction")
    assert not found.ok
    assert "allkeys-lru" in found.message


@pytest.mark.parametrize(("age", "ok"), [(1.0, True), (3600.0, False)])
def test_a_beat_that_stopped_is_named(tmp_path: Path, redis_server: RedisServer, age: float, ok: bool) -> None:
    settings = _settings(tmp_path / "m", redis_url=redis_server.url)
    _examined(settings)
    graph = SqliteGraphStore(tmp_path / "m" / GRAPH_FILE)
    graph.put_fact(BEAT_TICK, (datetime.now(UTC) - timedelta(seconds=age)).isoformat())
    graph.close()
    assert _examined(settings)["beat"].ok is ok


def test_a_clock_that_is_off_is_named(tmp_path: Path, redis_server: RedisServer) -> None:
    class Ahead(Deployment):
        @property
        def clock(self) -> Callable[[], datetime]:
            return lambda: datetime.now(UTC) + timedelta(minutes=5)

    deployment = Ahead(_settings(tmp_path / "m", redis_url=redis_server.url))
    try:
        found = {finding.name: finding for finding in examine(deployment, look_seconds=0.05)}["clocks"]
    finally:
        deployment.close()
    assert not found.ok
    assert "300 s" in found.message


HASTY = """
from celery import Celery
app = Celery("hasty", broker=URL)
app.conf.broker_transport_options = {"visibility_timeout": 10}
app.conf.task_default_queue = "ww"
app.worker_main(["worker", "-P", "solo", "-l", "INFO", "-Q", "ww", "--without-mingle", "--without-gossip"])
"""


def test_a_worker_with_too_short_a_visibility_timeout_is_named(tmp_path: Path, redis_server: RedisServer) -> None:
    script = HASTY.replace("URL", repr(redis_server.url))
    worker = subprocess.Popen(
        [sys.executable, "-c", script],
        env=clean_environment(PYTHONWARNINGS="ignore"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = _settings(tmp_path / "m", redis_url=redis_server.url)
    try:
        until(lambda: not _examined(settings)["visibility"].ok, every=0.2, what="the hasty worker answers")
        assert "10 s" in _examined(settings)["visibility"].message
    finally:
        worker.kill()
        worker.wait()


def test_a_worker_for_everything_leaves_only_beat_to_be_wished_for(
    tmp_path: Path, redis_server: RedisServer, start_worker: Callable[..., Worker]
) -> None:
    data_dir = tmp_path / "m"
    start_worker(data_dir, "-c", "1")
    done = subprocess.run(
        [sys.executable, "-m", "ww.cli", "--data-dir", str(data_dir), "doctor", "--json"],
        env=clean_environment(T4DM_REDIS_URL=redis_server.url),
        capture_output=True,
        text=True,
        timeout=90,
    )
    answer = json.loads(done.stdout)
    assert [check["name"] for check in answer["checks"] if not check["ok"]] == ["beat"]
    assert done.returncode == 1
