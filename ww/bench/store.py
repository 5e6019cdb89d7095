"""Storing: episodes acknowledged per second, beside SQLite alone with the same durability."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

from ww.bench import servers
from ww.bench.figure import Bench, Figure, p95, wall
from ww.memory.episodic import EpisodicMemory
from ww_core.deployment import Deployment
from ww_core.ids import new_id
from ww_core.maintenance.points import points
from ww_core.models import Episode
from ww_core.stores.ports import Claim

BATCH = 5000
IDLE_TARGET, BUSY_TARGET = 20_000, 8_000
IDLE_P95, BUSY_P95 = 5.0, 15.0
ROUNDS = 3


def run(bench: Bench) -> Iterator[Figure]:
    """Batches and single stores, idle and while episodes are embedded, each beside SQLite under the same load."""
    yield from _idle(bench)
    yield from _busy(bench)
    yield from servers.storing(bench)


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
    one, everything = len(singles) / sum(singles), _as_the_seed(bench)
    return [
        Figure("store_batch", max(ours), "episodes/s", IDLE_TARGET, max(alone), "SQLite alone"),
        Figure(*("store_p95", p95(singles), "ms", IDLE_P95, p95(commits), "a bare commit of SQLite"), low_is_good=True),
        Figure("store_p95_against_all_in_the_call", p95(singles), "ms", peer=p95(everything),
               peer_name="embedded and written in the call", low_is_good=True),
        Figure("store_batch_against_single", max(ours), "episodes/s", 3, one, "single stores", judged="ratio"),
    ]  # fmt: skip


def _busy(bench: Bench) -> list[Figure]:
    memory = EpisodicMemory(settings=bench.place("busy"))
    bare = _bare(bench.directory / "bare-busy.sqlite3")
    rates: list[float] = []
    alone: list[float] = []
    singles: list[float] = []
    commits: list[float] = []
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
            alone.append(len(contents) / wall(_insert_all, bare, contents))
        for content in texts(bench.scale.singles, "busy single"):
            singles.append(wall(ingest.store, content))
            commits.append(wall(_insert, bare, [content]))
        left = memory.sync.counts()
    finally:
        bare.close()
        memory.close()
    note = "" if left.pending + left.leased else "nothing was left to embed at the end"
    return [
        Figure("store_batch_while_embedding", max(rates), "episodes/s", BUSY_TARGET, max(alone),
               "SQLite alone beside the same", note=note),
        Figure("store_p95_while_embedding", p95(singles), "ms", BUSY_P95, p95(commits),
               "a bare commit of SQLite beside the same", low_is_good=True, note=note),
    ]  # fmt: skip


def _as_the_seed(bench: Bench) -> list[float]:
    """Seconds of single stores that do all in the call: the text embedded, its point written, then its row."""
    deployment = Deployment(bench.place("in-the-call"))
    embedding, vectors, graph = deployment.embedding, deployment.vectors, deployment.graph

    def store(content: str) -> None:
        (rows,) = embedding.embed_windows([content])
        episode = Episode(content, new_id(), "default", deployment.clock())
        vectors.upsert(points(Claim(episode, "", 1, 1, False), rows, {}))
        graph.add([episode])

    try:
        vectors.ensure(embedding.fingerprint)
        store("warm")
        return [wall(store, content) for content in texts(max(3, bench.scale.singles // 10), "in the call")]
    finally:
        deployment.close()


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
