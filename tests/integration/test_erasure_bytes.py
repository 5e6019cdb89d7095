"""What was forgotten cannot be found by reading files, logs and Redis byte by byte."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from celery import Celery

from tests.processes import BOUND, RedisServer, Worker, until
from ww.memory.episodic import EpisodicMemory
from ww_core.maintenance.scrub import scrub

CONTENT = "zanzibarquux"
CONTEXT = "kilimanjarovex"
MARKS = (CONTENT.encode(), CONTEXT.encode())


def in_files(*directories: Path) -> dict[bytes, list[str]]:
    """Names of the files that hold each mark."""
    found: dict[bytes, list[str]] = {mark: [] for mark in MARKS}
    # os.walk passes over directories that are just being replaced
    names = [
        Path(folder, name) for directory in directories for folder, _, files in os.walk(directory) for name in files
    ]
    for file in names:
        with suppress(OSError):  # a socket, or a file that has just gone
            content = file.read_bytes().lower()
            for mark in MARKS:
                if mark in content:
                    found[mark].append(file.name)
    return found


def in_redis(server: RedisServer) -> list[bytes]:
    """Keys whose name or value holds a mark."""
    with server.client() as client:
        dumped = {key: client.dump(key) or b"" for key in client.scan_iter(count=1000)}
    return [key for key, value in dumped.items() if any(mark in (key + value).lower() for mark in MARKS)]


def nowhere(server: RedisServer, *directories: Path) -> bool:
    return in_files(*directories) == {mark: [] for mark in MARKS} and in_redis(server) == []


def test_a_marker_is_nowhere_after_forget_nor_after_a_rollback(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    more = {"T4DM_CONSOLIDATION_MIN_CLUSTER_SIZE": "3", "T4DM_CONSOLIDATION_MIN_SAMPLES": "1"}
    start_worker(data, "-c", "1", T4DM_RECALL_WEIGHT_LATE="1", **more)
    options = {"data_dir": data, "redis_url": redis_server.url, "session_id": "s"}
    with EpisodicMemory(**options) as memory:
        texts = [f"{CONTENT} broke, {CONTENT} was mended, {CONTENT} broke {i}" for i in range(8)]
        texts += [f"the soup of day {i} was tomato with basil" for i in range(12)]
        batch = memory.sync.store_batch([{"content": t, "context": {"place": f"{CONTEXT}-{t[:4]}"}} for t in texts])
        app = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
        with app.connection_for_write():
            sent = app.send_task("ww.store", kwargs={"content": f"{CONTENT} by message", "session_id": "s"}, queue="ww")
            by_message = sent.get(timeout=BOUND)["episode_id"]
        memory.sync.flush(timeout=2 * BOUND)
        first = memory.sync.consolidate(wait=BOUND)
        memory.sync.store_batch([f"{CONTENT} once more, number {i}" for i in range(4)])
        memory.sync.flush(timeout=2 * BOUND)
        second = memory.sync.consolidate(wait=BOUND)
        assert second.run_id != first.run_id
        words = " ".join(f"{c.label} {c.keyphrases}" for c in memory.core.clusters("s")).lower()
        assert CONTENT in words, f"the label is made of it: {words}"
        memory.sync.recall(CONTENT)
        before = in_files(data)
        assert all(before.values()), "it is there to be found"

        marked = [e.episode_id for e in memory.sync.list(session_id="s") if CONTENT in e.content or e.context]
        assert by_message in marked
        assert {receipt.episode_id for receipt in batch.accepted} < set(marked)
        vectors = memory.core.deployment.vectors
        assert set(vectors.pieces(marked)) == set(marked), "word pieces are kept of each"
        for episode_id in marked:
            memory.sync.forget(episode_id)
        until(lambda: nowhere(redis_server, data, tmp_path), what=f"gone: {in_files(data, tmp_path)}")
        parts = memory.core.deployment
        parts.graph.rollback_run(second.run_id)
        assert nowhere(redis_server, data, tmp_path)
        assert not any(CONTENT in cluster.label.lower() for cluster in memory.core.clusters("s"))
        scrub(parts.graph, parts.vectors, now=parts.clock())
        assert nowhere(redis_server, data, tmp_path)
        assert vectors.pieces(marked) == {}
        assert memory.sync.verify().ok
        app.close()
