"""An application, ``ww status`` and two Celery workers on one data directory; the owner of the vectors is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.processes import RedisServer, Worker, clean_environment, until
from ww.memory.episodic import EpisodicMemory

EPISODES = 300
ROUNDS = 2


def _status(data_dir: Path, redis_url: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "ww.cli", "--data-dir", str(data_dir), "--json", "status"],
        env=clean_environment(T4DM_REDIS_URL=redis_url),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counts: dict[str, int] = json.loads(done.stdout)["episodes"]
    return counts


def test_all_go_on_when_the_owner_of_the_vectors_is_killed(
    tmp_path: Path, redis_server: RedisServer, start_worker: Callable[..., Worker]
) -> None:
    data_dir = tmp_path / "memory"
    workers = [start_worker(data_dir, "-c", "1"), start_worker(data_dir, "-c", "1")]
    memory = EpisodicMemory(session_id="ops", data_dir=data_dir, redis_url=redis_server.url)
    graph, vectors = memory.core.deployment.graph, memory.core.deployment.vectors
    killed: set[int] = set()
    try:
        for number in range(ROUNDS):
            before = graph.counts().embedded
            texts = [f"Rack {n} lost fan {number}-{n}: replaced by the night shift" for n in range(EPISODES)]
            receipt = memory.sync.store_batch(texts)
            assert len(receipt.accepted) == EPISODES
            until(lambda before=before: graph.counts().embedded > before, what="workers embed")  # type: ignore[misc]
            owner = int(vectors.info()["owner_pid"])
            family = {child.pid for worker in workers for child in worker.children()}
            if owner in family:  # else this process took over in an earlier round, and cannot be killed
                os.kill(owner, signal.SIGKILL)
                killed.add(owner)
            until(lambda: graph.counts().pending + graph.counts().leased == 0, what="the backlog drains")
        assert killed
        assert _status(data_dir, redis_server.url)["embedded"] == ROUNDS * EPISODES
        hits = memory.sync.recall(f"Rack 7 lost fan {ROUNDS - 1}-7", limit=1)
        assert hits[0].content.startswith(f"Rack 7 lost fan {ROUNDS - 1}-7")
        verified = memory.core.verify()
        assert verified.ok, verified
    finally:
        memory.close()
