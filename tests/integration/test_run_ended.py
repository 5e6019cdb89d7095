"""Consolidations that are ended in the middle of their arithmetic: by signals, from elsewhere, by their time limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from tests.processes import BOUND, ROOT, RedisServer, Worker, clean_environment, until
from tests.unit.consolidation.blobs import blobs
from ww.bench.figure import cpu
from ww.bench.filled import embedded
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.consolidation.clustering import cluster
from ww_core.deployment import Deployment
from ww_core.models import Episode, Run
from ww_core.stores.ports import GraphStore, Queue
from ww_workers.settings import SOFT_SHUTDOWN_SECONDS

SESSION = "ops"
TOPICS, FEWEST = 50, 100
LONG_SECONDS = 5.0
"""That clustering all of them takes at least, whatever the machine: it must not be over before it is broken off."""
ENDS_SECONDS = SOFT_SHUTDOWN_SECONDS / 2
"""Two or three on a machine that does nothing else; after twice as long a worker is ended by force."""
AT_WORK = 0.15
"""Progress of a run that has read everything."""


@lru_cache(maxsize=1)
def many() -> int:
    """Episodes of the session, and the cap of a run that clusters them all."""
    rows, _ = blobs(TOPICS, FEWEST, dimension=384, spread=0.6)
    took = cpu(lambda: cluster(rows))
    return TOPICS * round(FEWEST * max(1.0, (LONG_SECONDS / took) ** 0.5))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a session that nobody has consolidated yet."""
    directory = tmp_path_factory.mktemp("large")
    rows, truth = blobs(TOPICS, many() // TOPICS, dimension=384, spread=0.6)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    episodes = [
        Episode(f"{i} belongs to topic {label}", f"e{i:07}", SESSION, start + timedelta(minutes=i))
        for i, label in enumerate(truth)
    ]
    deployment = Deployment(Settings(data_dir=directory))
    deployment.vectors.ensure(deployment.embedding.fingerprint)
    embedded(deployment.graph, deployment.vectors, None, episodes, rows)
    deployment.close()
    return directory


@pytest.fixture
def data(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "data"))


@pytest.fixture
def command(data: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``ww consolidate`` without a broker; each is ended with the test."""
    line = [sys.executable, "-m", "ww.cli", "--data-dir", str(data), "--session", SESSION, "--json", "consolidate"]
    environment = clean_environment(PYTHONPATH=str(ROOT), T4DM_CONSOLIDATION_MAX_SAMPLES=str(many()))
    with ExitStack() as ends:

        def start(stderr: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
            process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
            ends.enter_context(process)
            ends.callback(process.kill)
            return process

        yield start


@pytest.fixture
def pool(start_worker: Callable[..., Worker], data: Path) -> Callable[..., Worker]:
    """Starts a worker that only consolidates."""

    def start(**environment: str) -> Worker:
        environment["T4DM_CONSOLIDATION_MAX_SAMPLES"] = str(many())
        return start_worker(data, "-Q", Queue.CONSOLIDATE.value, "-c", "1", **environment)

    return start


def listed(data: Path) -> list[Any]:
    """What ``ww runs`` says, newest first."""
    line = [sys.executable, "-m", "ww.cli", "--data-dir", str(data), "--json", "runs"]
    found = subprocess.run(line, env=clean_environment(PYTHONPATH=str(ROOT)), capture_output=True, timeout=BOUND)
    runs: list[Any] = json.loads(found.stdout)["runs"]
    return runs


def recorded(data: Path, query: str) -> list[Any]:
    try:
        with closing(sqlite3.connect(f"file:{data}/graph.sqlite3?mode=ro", uri=True)) as record:
            return record.execute(query).fetchall()
    except sqlite3.OperationalError:  # it is being opened
        return []


def staged(data: Path) -> int:
    return int(recorded(data, "SELECT count(*) FROM membership")[0][0])


def wait_until_at_work(data: Path) -> None:
    query = f"SELECT run_id FROM run WHERE status = 'running' AND progress >= {AT_WORK}"
    until(lambda: recorded(data, query), what="a run is at its arithmetic")


@contextmanager
def terminal() -> Iterator[int]:
    """A terminal whose screen somebody looks at: one that nobody reads holds up whoever writes much to it."""
    screen, end = os.openpty()

    def look() -> None:
        with suppress(OSError):  # closed
            while os.read(screen, 4096):
                pass

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield end
    finally:
        os.close(end)
        looking.join(BOUND)
        os.close(screen)


@pytest.mark.parametrize("on_terminal", [False, True])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_ended_cancels_its_run(
    number: signal.Signals, on_terminal: bool, command: Callable[..., subprocess.Popen[str]], data: Path
) -> None:
    with terminal() as end:
        process = command(stderr=end if on_terminal else subprocess.DEVNULL)
        wait_until_at_work(data)
        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(BOUND) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
        assert time.monotonic() - started < ENDS_SECONDS
    (run,) = listed(data)
    assert run["status"] == "cancelled"
    assert staged(data) == 0


def test_what_a_killed_command_left_the_next_one_does(
    command: Callable[..., subprocess.Popen[str]], data: Path
) -> None:
    killed = command()
    wait_until_at_work(data)
    killed.kill()
    killed.wait()
    out, _ = command().communicate(timeout=BOUND)
    (run,) = json.loads(out)["runs"]
    assert (run["status"], run["considered"], len(run["clusters"])) == ("done", many(), TOPICS)
    assert [(one["run_id"], one["status"]) for one in listed(data)] == [(run["run_id"], "done")]


def test_a_worker_that_is_told_to_end_hands_its_run_to_the_next(
    pool: Callable[..., Worker], redis_server: RedisServer, data: Path
) -> None:
    worker = pool()
    with EpisodicMemory(session_id=SESSION, data_dir=data, redis_url=redis_server.url) as memory:
        requested = memory.sync.consolidate(wait=0)
        wait_until_at_work(data)
        assert worker.terminate() < ENDS_SECONDS, worker.output()[-3000:]
        assert worker.process.returncode == 0
        assert [one["status"] for one in listed(data)] == ["requested"]
        assert staged(data) == 0
        with redis_server.client() as client:
            assert client.llen(Queue.CONSOLIDATE.value) >= 1, "whoever comes goes on at once"
        pool()
        run = finished(memory.core.deployment.graph, requested.run_id)
        assert (run.status, run.considered, len(run.clusters)) == ("done", many(), TOPICS)
        assert len(memory.sync.runs()) == 1


def test_a_run_of_a_killed_worker_is_no_longer_shown_as_running(
    pool: Callable[..., Worker], redis_server: RedisServer, data: Path
) -> None:
    worker = pool()
    with EpisodicMemory(session_id=SESSION, data_dir=data, redis_url=redis_server.url) as memory:
        memory.sync.consolidate(wait=0)
        wait_until_at_work(data)
        children = worker.children()
        worker.kill()
        until(lambda: not any(child.is_running() for child in children), what="the children are gone as well")
        memory.core.deployment.graph.expire_leases(max_attempts=3)
        assert [one["status"] for one in listed(data)] == ["requested"]


def test_a_cancelled_run_makes_room_for_the_next_at_once(
    pool: Callable[..., Worker], redis_server: RedisServer, data: Path
) -> None:
    pool()
    with EpisodicMemory(session_id=SESSION, data_dir=data, redis_url=redis_server.url) as memory:
        graph = memory.core.deployment.graph
        run = memory.sync.consolidate(wait=0)
        wait_until_at_work(data)
        started = time.monotonic()
        assert memory.core.cancel(run.run_id).status == "cancelled"
        other = memory.sync.consolidate(wait=0)
        until(lambda: graph.run(other.run_id).status == "running", what="the worker is free")
        assert time.monotonic() - started < ENDS_SECONDS
        assert graph.run(run.run_id).status == "cancelled"


def test_a_run_fails_soon_after_its_time_is_up(
    pool: Callable[..., Worker], redis_server: RedisServer, data: Path
) -> None:
    pool(T4DM_CONSOLIDATION_TIME_LIMIT="1")
    with EpisodicMemory(session_id=SESSION, data_dir=data, redis_url=redis_server.url) as memory:
        run = finished(memory.core.deployment.graph, memory.sync.consolidate(wait=0).run_id)
        assert run.status == "failed"
        assert "consolidation_time_limit" in (run.error or "")
        assert run.seconds < 1 + ENDS_SECONDS


def finished(graph: GraphStore, run_id: str) -> Run:
    until(lambda: graph.run(run_id).status not in ("requested", "running"), what="the run is over")
    return graph.run(run_id)
