"""What acknowledging episodes costs on the embedded graph store, next to SQLite alone in the same run."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from tests.contract.graphs import episodes
from ww_core.models import Episode
from ww_core.stores.embedded.graph import SqliteGraphStore

BATCH = 5_000
BATCHES = 4
LEAST_SHARE = 0.3
"""Of the rows that SQLite alone writes with the same durability, one table, one unique key. Measured: 0.5 to 0.8."""


def test_store_batch_keeps_pace_with_sqlite_alone(tmp_path: Path) -> None:
    bare = sqlite3.connect(tmp_path / "bare.db", isolation_level=None)
    bare.executescript(
        """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
        CREATE TABLE episode (seq INTEGER PRIMARY KEY, episode_id TEXT UNIQUE, content TEXT, at TEXT)"""
    )
    store = SqliteGraphStore(tmp_path / "graph.db")
    store.ping()

    def alone(batch: Sequence[Episode]) -> None:
        bare.execute("BEGIN IMMEDIATE")
        rows = [(e.episode_id, e.content, str(e.timestamp)) for e in batch]
        bare.executemany("INSERT INTO episode (episode_id, content, at) VALUES (?, ?, ?)", rows)
        bare.execute("COMMIT")

    # turn by turn, so that what else the machine does slows both
    seconds: dict[str, list[float]] = {"bare": [], "store": []}
    for turn in range(BATCHES):
        batch = _batch(turn)
        for name, write in (("bare", alone), ("store", store.add)):
            started = time.perf_counter()
            write(batch)
            seconds[name].append(time.perf_counter() - started)
    bare.close()
    store.close()

    rates = {name: BATCH / median(spent) for name, spent in seconds.items()}
    print({name: f"{rate:,.0f} episodes/s" for name, rate in rates.items()})
    assert rates["store"] / rates["bare"] > LEAST_SHARE, rates


@pytest.mark.parametrize("backlog", [0, 20_000])
def test_a_single_store_does_not_depend_on_the_backlog(tmp_path: Path, backlog: int) -> None:
    store = SqliteGraphStore(tmp_path / "graph.db")
    for turn in range(backlog // BATCH):
        store.add(_batch(turn))
    spent: list[float] = []
    for episode in _batch(99)[:200]:
        started = time.perf_counter()
        store.add([episode])
        spent.append(time.perf_counter() - started)
    store.close()
    spent.sort()
    print(f"backlog {backlog:,}: p50 {spent[100] * 1000:.2f} ms, p95 {spent[190] * 1000:.2f} ms")
    # the disk's own fsync is most of it: 0.3 to 4 ms
    assert spent[100] < 0.05, spent[100]


def _batch(turn: int) -> list[Episode]:
    return [
        replace(e, episode_id=uuid.uuid4().hex, content=e.content * 10) for e in episodes(BATCH, start=turn * BATCH)
    ]
