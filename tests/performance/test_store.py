"""Storing is fast beside what the disk and SQLite allow in the same run, and batches are faster than single calls.

Ratios only: absolute rates belong to the machine and are printed (``-s`` shows them).
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ww.bench.figure import cpu
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.hooks import process_hooks
from ww_core.ids import new_ids
from ww_core.ingest import validate
from ww_core.models import Episode

ROWS = 10_000
SINGLES = 200


def texts(n: int) -> list[str]:
    return [f"episode number {i}: the deploy of service {i % 97} took {i % 13} minutes" for i in range(n)]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Nobody embeds here: the dispatcher is idle."""
    opened = Deployment(Settings(data_dir=tmp_path / "data"))
    yield opened
    opened.close()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """SQLite as durable as the graph store, with one table and the index that an outbox needs."""
    db = sqlite3.connect(tmp_path / "bare.sqlite3", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(
        "CREATE TABLE e (id TEXT PRIMARY KEY, session TEXT, at INTEGER, state INTEGER, content TEXT, context TEXT)"
    )
    db.execute("CREATE INDEX pending ON e (state, at)")
    yield db
    db.close()


def insert(db: sqlite3.Connection, rows: list[tuple[str, str]]) -> None:
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO e VALUES (?, 'default', 0, 0, ?, '{}')", rows)
    db.execute("COMMIT")


def test_a_batch_is_stored_at_a_good_share_of_what_the_graph_store_takes(deployment: Deployment) -> None:
    contents = texts(ROWS)
    now = datetime.now(UTC)
    deployment.ingest.store_batch(contents[:100])
    shares = []
    for _ in range(3):  # interleaved, so that other work on the machine meets both
        ids = new_ids(ROWS)
        rows = [validate.episode(c, position=i, episode_id=ids[i], now=now) for i, c in enumerate(contents)]
        start = time.perf_counter()
        for i in range(0, ROWS, 2000):
            deployment.graph.add(rows[i : i + 2000])
        alone = time.perf_counter() - start
        start = time.perf_counter()
        batch = deployment.ingest.store_batch(contents)
        ours = time.perf_counter() - start
        assert len(batch.accepted) == ROWS
        shares.append(alone / ours)
        print(f"store_batch {ROWS / ours:,.0f}/s, the graph store alone {ROWS / alone:,.0f}/s")
    assert max(shares) > 0.5


def test_a_single_store_costs_little_more_than_the_commit_it_waits_for(
    deployment: Deployment, bare: sqlite3.Connection
) -> None:
    deployment.ingest.store("warm")
    ours, alone = [], []
    for i, episode_id in enumerate(new_ids(SINGLES)):
        start = time.perf_counter()
        insert(bare, [(episode_id, f"single {i}")])
        middle = time.perf_counter()
        deployment.ingest.store(f"single {i}")
        ours.append(time.perf_counter() - middle)
        alone.append(middle - start)
    p95 = statistics.quantiles(ours, n=20)[-1]
    print(f"store p95 {p95 * 1000:.2f} ms, a bare commit {statistics.quantiles(alone, n=20)[-1] * 1000:.2f} ms")
    assert statistics.median(ours) < 5 * statistics.median(alone) + 0.002


def test_batches_are_several_times_faster_than_single_calls(deployment: Deployment) -> None:
    contents = texts(2000)
    start = time.perf_counter()
    for content in contents[:SINGLES]:
        deployment.ingest.store(content)
    single = (time.perf_counter() - start) / SINGLES
    start = time.perf_counter()
    deployment.ingest.store_batch(contents)
    batched = (time.perf_counter() - start) / len(contents)
    print(f"single {1 / single:,.0f}/s, batch {1 / batched:,.0f}/s")
    assert single > 3 * batched


def test_validation_is_a_small_part_of_a_store(deployment: Deployment) -> None:
    contents = texts(ROWS)
    now = datetime.now(UTC)
    start = time.process_time()
    ids = new_ids(ROWS)
    for i, content in enumerate(contents):
        validate.episode(content, position=i, episode_id=ids[i], now=now)
    validation = time.process_time() - start
    start = time.process_time()
    deployment.ingest.store_batch(contents)
    whole = time.process_time() - start
    print(f"validation alone {ROWS / validation:,.0f}/s of CPU time")
    assert validation < 0.5 * whole


def test_hooks_cost_what_they_cost_and_none_cost_nothing(deployment: Deployment) -> None:
    contents = texts(1000)
    deployment.ingest.store_batch(contents)

    def store() -> None:
        deployment.ingest.store_batch(contents)

    def look(episode: Episode) -> None:
        return None

    without, hooked = [], []
    for _ in range(5):
        without.append(cpu(store))
        process_hooks().add("before_store", look)
        try:
            hooked.append(cpu(store))
        finally:
            process_hooks().remove(look)
    print(f"1000 episodes: without hooks {min(without):.6f} s of CPU time, with one {min(hooked):.6f} s")
    assert min(hooked) > min(without)
    assert deployment.metrics.sketch("hooks.before_store").count >= 1000
