"""A worker that is told to end: its drain hands back what it holds, and the worker is gone in seconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes import BOUND, ROOT, RedisServer, Worker, clean_environment, until
from ww.memory.episodic import EpisodicMemory
from ww_core.stores.ports import Queue
from ww_workers.settings import SOFT_SHUTDOWN_SECONDS

PROMPT_SECONDS = SOFT_SHUTDOWN_SECONDS / 2
"""Some three seconds on an idle machine; Celery's own soft shutdown always takes all of its time."""
TEXTS = [f"{i} " + "some longer text about the sea. " * 30 for i in range(600)]

STUBBORN = """
import os, signal, time
from celery.signals import task_prerun
from ww_core.embedding import service
from ww_workers import ending

ending.SOFT_SHUTDOWN_SECONDS, ending.FORCE_SECONDS = 2, 3.0

def windows_as_made(self, lists):
    print("hears nothing", flush=True)
    while True:
        time.sleep(1)
    yield

@task_prerun.connect(weak=False)
def deafen(**_):
    if os.environ["DEAF"]:  # as in the middle of a long calculation
        for number in (signal.SIGTERM, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

service.EmbeddingService.windows_as_made = windows_as_made
"""


def filled(data: Path, redis_server: RedisServer) -> EpisodicMemory:
    memory = EpisodicMemory(session_id="s", data_dir=data, redis_url=redis_server.url)
    memory.sync.store_batch(TEXTS)
    return memory


def at_work(memory: EpisodicMemory) -> bool:
    counts = memory.sync.counts()
    return counts.leased > 0 and counts.embedded > 0


def given_back(memory: EpisodicMemory) -> bool:
    counts = memory.sync.counts()
    assert (counts.acknowledged, counts.dead, counts.balanced) == (len(TEXTS), 0, True)
    return counts.leased == 0 and 0 < counts.embedded < len(TEXTS)


@pytest.mark.parametrize("remapped", ["SIGQUIT", ""])
def test_sigterm_ends_a_drain_and_others_are_rung_for_the_rest(
    remapped: str, start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    queues = f"{Queue.EMBED.value},{Queue.MAINTAIN.value}"
    worker = start_worker(tmp_path / "data", "-Q", queues, "-c", "1", REMAP_SIGTERM=remapped)
    with filled(tmp_path / "data", redis_server) as memory:
        until(lambda: at_work(memory), what="a drain is under way")
        assert worker.terminate() < PROMPT_SECONDS, worker.output()[-3000:]
        assert worker.process.returncode == 0
        assert given_back(memory)
        with redis_server.client() as client:
            assert client.llen(Queue.EMBED.value) >= 1, "whoever comes goes on at once"
        assert memory.sync.verify().ok


def test_ww_worker_and_its_whole_process_group_may_be_told(redis_server: RedisServer, tmp_path: Path) -> None:
    """As systemd does it."""
    given = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "T4DM_REDIS_URL": redis_server.url}
    command = [sys.executable, "-m", "ww.cli", "--data-dir", str(tmp_path / "data"), "worker", "--pool", "cpu"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=clean_environment(**given), stdout=log, stderr=log, start_new_session=True
        )
    try:
        with filled(tmp_path / "data", redis_server) as memory:
            until(lambda: at_work(memory), what="a drain is under way")
            started = time.monotonic()
            os.killpg(process.pid, signal.SIGTERM)
            assert process.wait(BOUND) == 0
            assert time.monotonic() - started < PROMPT_SECONDS, (tmp_path / "log").read_text()[-3000:]
            assert given_back(memory)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize(("broker", "deaf"), [("answers", ""), ("is frozen", "yes")])
def test_a_task_that_does_not_listen_is_ended_by_force(
    broker: str, deaf: str, start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    queues = f"{Queue.EMBED.value},{Queue.MAINTAIN.value}"
    worker = start_worker(tmp_path / "data", "-Q", queues, "-c", "1", "-I", "stubborn", PYTHONPATH=path, DEAF=deaf)
    with filled(tmp_path / "data", redis_server) as memory:
        until(lambda: "hears nothing" in worker.output(), what="a drain is under way")
        children = worker.children()
        if broker == "is frozen":
            redis_server.freeze()
        try:
            took = worker.terminate()
        finally:
            redis_server.thaw()
        assert 2 <= took < 2 + 3 + PROMPT_SECONDS, worker.output()[-3000:]
        assert "2 s after they were told to stop" in worker.output()
        until(lambda: not any(child.is_running() for child in children), what="the children are gone as well")
        # a task that could be interrupted gave its rows back; those of a killed one are free without waiting
        assert (memory.core.deployment.graph.expire_leases(max_attempts=3) > 0) is (deaf == "yes")
        counts = memory.sync.counts()
        assert (counts.pending, counts.leased, counts.dead) == (len(TEXTS), 0, 0)
