"""Workers that are killed or frozen in the middle of their work."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.holding import let_nobody_ring
from tests.processes import BOUND, ROOT, RedisServer, Worker, clean_environment, until
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.maintenance.drain import Drain
from ww_core.maintenance.erase import erase
from ww_core.maintenance.sweep import sweep
from ww_core.maintenance.verify import verify
from ww_core.stores.ports import Queue

TEXTS = [f"text number {i}" for i in range(20)]


class Scene:
    """A data directory whose vectors this process owns, so that a frozen worker freezes nobody else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.deployment = Deployment(Settings(data_dir=directory))
        self.graph, self.vectors = self.deployment.graph, self.deployment.vectors
        self.vectors.ensure(self.deployment.embedding.fingerprint)
        batch = self.deployment.ingest.store_batch([{"content": text, "session_id": "s"} for text in TEXTS])
        self.ids = [receipt.episode_id for receipt in batch.accepted]
        self._workers: list[subprocess.Popen[bytes]] = []

    def worker(self, lease: float, *freeze: str) -> subprocess.Popen[bytes]:
        """Returns when it is frozen."""
        command = [sys.executable, "-m", "tests.integration.drainer", str(self.directory), str(lease), *freeze]
        environment = clean_environment(PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore")
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        self._workers.append(process)
        self.wait_frozen(process)
        return process

    @staticmethod
    def wait_frozen(process: subprocess.Popen[bytes]) -> None:
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, what="frozen")

    @staticmethod
    def thaw(process: subprocess.Popen[bytes]) -> int:
        """Let it finish; how many episodes it marked."""
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate(timeout=BOUND)
        assert process.returncode == 0
        return int(out)

    def lose_lease(self) -> None:
        until(lambda: sweep(self.graph, self.vectors, max_attempts=3).freed == len(TEXTS), what="the lease ends")

    def drain(self) -> int:
        parts = self.deployment
        done = Drain(self.graph, self.vectors, parts.embedding, parts.settings, parts.metrics)
        total = 0
        while self.graph.has_work():
            total += done.run(max_seconds=60).embedded
        return total

    def whole(self) -> bool:
        assert self.graph.counts().balanced
        return verify(self.graph, self.vectors).ok

    def close(self) -> None:
        for process in self._workers:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.deployment.close()


@pytest.fixture
def scene(quick_path: Path) -> Iterator[Scene]:
    made = Scene(quick_path)
    yield made
    made.close()


def test_a_frozen_worker_that_wakes_after_another_has_finished_changes_nothing(scene: Scene) -> None:
    frozen = scene.worker(1, "mark_embedded")
    scene.lose_lease()
    assert scene.drain() == len(TEXTS)
    before = scene.vectors.generations(scene.ids)
    assert scene.thaw(frozen) == 0
    assert scene.vectors.generations(scene.ids) == before == dict.fromkeys(scene.ids, (2, 1))
    assert scene.graph.counts().embedded == len(TEXTS)
    assert scene.whole()


def test_a_frozen_worker_that_wakes_first_leaves_the_rows_to_whoever_comes(scene: Scene) -> None:
    frozen = scene.worker(1, "mark_embedded")
    scene.lose_lease()
    # void as it is, it finds everything pending again and embeds it as anybody would
    assert scene.thaw(frozen) == len(TEXTS)
    assert scene.whole()


def test_what_is_forgotten_while_a_worker_is_frozen_leaves_nothing_behind(scene: Scene) -> None:
    frozen = scene.worker(60, "upsert")
    erased = erase(scene.graph, scene.vectors, episode_ids=scene.ids[:5])
    assert (erased.episodes, erased.vectors) == (5, 0)
    # it writes all twenty, finds five of its claims void, and takes their points away again
    assert scene.thaw(frozen) == len(TEXTS) - 5
    assert set(scene.vectors.generations(scene.ids)) == set(scene.ids[5:])
    assert scene.whole()


def test_a_worker_killed_after_writing_what_was_forgotten_is_cleaned_up_behind(scene: Scene) -> None:
    frozen = scene.worker(5, "upsert", "mark_embedded")
    erase(scene.graph, scene.vectors, episode_ids=scene.ids[:5])
    frozen.send_signal(signal.SIGCONT)
    until(lambda: len(scene.vectors.generations(scene.ids)) == len(TEXTS), what="written")
    scene.wait_frozen(frozen)
    frozen.kill()
    assert not scene.whole()
    until(lambda: sweep(scene.graph, scene.vectors, max_attempts=3).freed == len(TEXTS) - 5, what="the lease ends")
    assert scene.drain() == len(TEXTS) - 5
    assert scene.whole()
    assert scene.graph.counts().erased == 5


def test_kill_9_of_a_celery_worker_in_mid_drain_loses_and_doubles_nothing(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    rng = random.Random(7)
    first = start_worker(data, "-c", "1", T4DM_EMBEDDING_LEASE="5")
    with EpisodicMemory(session_id="s", data_dir=data, redis_url=redis_server.url) as memory:
        batch = memory.sync.store_batch([f"{i} " + "some longer text about the sea. " * 20 for i in range(200)])
        ids = [receipt.episode_id for receipt in batch.accepted]
        threshold = rng.randrange(5, 60)
        until(lambda: memory.sync.counts().embedded > threshold, what="some are embedded")
        first.kill()
        counts = memory.sync.counts()
        assert counts.embedded < 200
        assert counts.leased > 0
        memory.sync.forget(ids[-1])
        # no beat: the worker that comes sweeps by itself
        start_worker(data, "-c", "1", T4DM_EMBEDDING_LEASE="5")
        until(lambda: memory.sync.counts().embedded == 199, within=2 * BOUND, what="all embedded")
        counts = memory.sync.counts()
        assert (counts.acknowledged, counts.dead, counts.erased, counts.balanced) == (200, 0, 1, True)
        assert memory.sync.verify().ok


def test_what_a_killed_child_held_is_embedded_by_the_next_one_without_a_sweep(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    worker = start_worker(data, "-c", "1", "-Q", Queue.EMBED.value, T4DM_EMBEDDING_LEASE="3600")
    with EpisodicMemory(session_id="s", data_dir=data, redis_url=redis_server.url) as memory:
        memory.sync.store_batch([f"{i} " + "some longer text about the sea. " * 20 for i in range(50)])
        until(lambda: memory.sync.counts().embedded > 0, what="some are embedded")
        with redis_server.client() as client:
            let_nobody_ring(client, "ww")
        (child,) = worker.children()
        child.kill()
        counts = memory.sync.counts()
        assert (counts.leased > 0, counts.embedded < 50) == (True, True)
        until(lambda: memory.sync.counts().embedded == 50, what="all embedded")
        assert memory.sync.verify().ok
