"""Storing: episodes acknowledged per second, beside SQLite alone with the same durability."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from ww.bench import servers
from ww.bench.figure import Bench, Figure, p95, wall
from ww.memory.episodic import EpisodicMemory
from ww_core.deployment import Deployment

BATCH = 5000
IDLE_TARGET, BUSY_TARGET = 20_000, 8_000
IDLE_P95, BUSY_P95 = 5.0, 15.0
ROUNDS = 3


def run(bench: Bench) -> list[Figure]:
    """Batches and single stores, idle and while episodes are embedded."""
    return [*_idle(bench), *_busy(bench), *servers.storing(bench)]


def texts(n: int, mark: str = "") -> list[str]:
    """Short texts as applications store them, all different."""
    return [f"{mark} episode {i}: the deploy of service {i % 97} took {i % 13} minutes" for i in range(n)]


def _idle(bench: Bench) -> list[Figure]:
    deployment = Deployment(bench.place("idle"))
    bare = _bare(bench.directory / "bare.sqlite3")
    try:
        deployment.ingest.store_batch(texts(100))
        ours, alone = [], []
        for turn in range(ROUNDS):  # turn by turn, so that what else the machine does slows both
            contents = texts(bench.scale.stored, f"round {turn}")
            ours.append(len(contents) / wall(deployment.ingest.store_batch, contents))
            alone.append(len(contents) / wall(_insert_all, bare, contents))
        singles, commits = [], []
        for content in texts(bench.scale.singles, "single"):
            singles.append(wall(deployment.ingest.store, content))
            commits.append(wall(_insert, bare, [content]))
    finally:
        bare.close()
        deployment.close()
    one = len(singles) / sum(singles)
    return [
        Figure("store_batch", max(ours), "episodes/s", IDLE_TARGET, max(alone), "SQLite alone"),
        Figure(*("store_p95", p95(singles), "ms", IDLE_P95, p95(commits), "a bare commit of SQLite"), low_is_good=True),
        Figure("store_batch_against_single", max(ours), "episodes/s", 3, one, "single stores", judged="ratio"),
    ]


def _busy(bench: Bench) -> list[Figure]:
    memory = EpisodicMemory(settings=bench.place("busy"))
    rates: list[float] = []
    try:
        ingest = memory.core.deployment.ingest
        memory.core.deployment.embedding.warm()
        memory.sync.store_batch(texts(bench.scale.stored, "backlog"))
        deadline = time.monotonic() + 60
        while memory.sync.counts().embedded == 0 and time.monotonic() < deadline:
            memory.core.deployment.doorbell.ring()
            time.sleep(0.05)
        for turn in range(ROUNDS):
            contents = texts(bench.scale.stored, f"busy {turn}")
            rates.append(len(contents) / wall(ingest.store_batch, contents))
        singles = [wall(ingest.store, content) for content in texts(bench.scale.singles, "busy single")]
    finally:
        memory.close()
    return [
        Figure("store_batch_while_embedding", max(rates), "episodes/s", BUSY_TARGET),
        Figure("store_p95_while_embedding", p95(singles), "ms", BUSY_P95, low_is_good=True),
    ]


def _bare(path: Path) -> sqlite3.Connection:
    """As durable as the graph store, with one table and the index that an outbox needs."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE e (id TEXT PRIMARY KEY, session TEXT, at INTEGER, state INTEGER, content TEXT)")
    db.execute("CREATE INDEX pending ON e (state, at)")
    return db


def _insert(db: sqlite3.Connection, contents: Sequence[str]) -> None:
    rows = [(uuid4().hex, content) for content in contents]
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO e VALUES (?, 'default', 0, 0, ?)", rows)
    db.execute("COMMIT")


def _insert_all(db: sqlite3.Connection, contents: Sequence[str]) -> None:
    for i in range(0, len(contents), BATCH):
        _insert(db, contents[i : i + BATCH])
