"""What was acknowledged is there after kill -9, and storing it again stores nothing twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT
from ww_core.stores import pages
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.ports import Where

# Only the ingestion core: what embeds in the background is killed elsewhere. Each id is acknowledged on stdout by one
# unbuffered write after the call that stored it.
PRODUCER = """
import os, sys
from ww_core.config import Settings
from ww_core.deployment import Deployment
ingest = Deployment(Settings(data_dir=sys.argv[1])).ingest
for i in range(int(sys.argv[2])):
    batch = [{"content": f"line {i}-{j}", "episode_id": f"{i}-{j}"} for j in range(int(sys.argv[3]))]
    if len(batch) == 1:
        done = [ingest.store(batch[0])]
    else:
        done = ingest.store_batch(batch).accepted
    os.write(1, "".join(receipt.episode_id + "\\n" for receipt in done).encode())
"""


def produce(data_dir: Path, calls: int, size: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PRODUCER, str(data_dir), str(calls), str(size)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, cwd=data_dir.parent)


def stored(data_dir: Path) -> list[str]:
    graph = SqliteGraphStore(data_dir / "graph.sqlite3")
    try:
        found = [episode.episode_id for page in pages.episodes(graph, Where(), size=500) for episode in page]
        assert graph.counts().acknowledged == len(found)
        return found
    finally:
        graph.close()


@pytest.mark.parametrize("size", [1, 20])
def test_acknowledged_episodes_survive_kill_9_at_random_moments(tmp_path: Path, size: int) -> None:
    rng = random.Random(size)
    data_dir = tmp_path / "data"
    acknowledged: set[str] = set()
    for _ in range(3):
        producer = produce(data_dir, 100_000, size)
        assert producer.stdout is not None
        got = [producer.stdout.readline()]
        got += [producer.stdout.readline() for _ in range(rng.randrange(5, 200))]
        producer.send_signal(signal.SIGKILL)
        rest = producer.stdout.read()
        producer.stdout.close()
        producer.wait(timeout=30)
        whole = b"".join(got) + rest
        complete = whole[: whole.rfind(b"\n") + 1]  # the kill may cut the last line short
        acknowledged |= set(complete.decode().split())
        there = stored(data_dir)
        assert acknowledged <= set(there)
        assert len(there) == len(set(there))


def test_the_same_run_again_completes_what_was_cut_off(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    producer = produce(data_dir, 30, 20)
    assert producer.stdout is not None
    producer.stdout.readline()
    producer.send_signal(signal.SIGKILL)
    producer.communicate(timeout=30)
    again = produce(data_dir, 30, 20)
    again.communicate(timeout=60)
    assert again.returncode == 0
    assert sorted(stored(data_dir)) == sorted(f"{i}-{j}" for i in range(30) for j in range(20))
