"""What acknowledging episodes costs on the embedded graph store, next to SQLite alone in the same run."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from tests.contract.graphs import episodes
from ww_core.models import Episode
from ww_core.stores.embedded.graph import SqliteGraphStore

BATCH = 5_000
BATCHES = 4
LEAST_SHARE = 0.3
"""Of the rows that SQLite alone writes with the same durability, one table, one unique key. Measured: 0.5 to 0.8."""
BACKLOG, SINGLES = 20_000, 200
MOST_TIMES_EMPTY = 2.0
"""Of the median of a store that has nothing pending; the disk's own fsync, 0.3 to 4 ms, is most of either."""


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


def test_a_single_store_does_not_depend_on_the_backlog(tmp_path: Path) -> None:
    stores = [SqliteGraphStore(tmp_path / name) for name in ("empty.db", "full.db")]
    for turn in range(BACKLOG // BATCH):
        stores[1].add(_batch(turn))
    stores[0].add(_batch(98)[:1])
    seconds: list[list[float]] = [[], []]
    for episode in _batch(99)[:SINGLES]:  # turn by turn, so that what else uses the disk slows both
        for spent, store in zip(seconds, stores, strict=True):
            started = time.perf_counter()
            store.add([episode])
            spent.append(time.perf_counter() - started)
    for store in stores:
        store.close()
    empty, full = (1000 * median(spent) for spent in seconds)
    print(f"p50 {empty:.2f} ms, with {BACKLOG:,} pending {full:.2f} ms")
    assert full < MOST_TIMES_EMPTY * empty


def _batch(turn: int) -> list[Episode]:
    return [
        replace(e, episode_id=uuid.uuid4().hex, content=e.content * 10) for e in episodes(BATCH, start=turn * BATCH)
    ]
