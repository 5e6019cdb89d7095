"""What a process had leased is free when it dies, at once; not while it lives, however still it stands."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.contract.graphs import START, embed, episodes, ids
from tests.holding import Hold, kill, starter
from tests.processes import until
from ww_core.errors import Busy
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.holders import Holders

HOUR = 3600.0
HOLDER = f"""
import os, sys
from pathlib import Path
from ww_core.stores.embedded.graph import SqliteGraphStore
graph, what = SqliteGraphStore(Path(sys.argv[1])), sys.argv[2]
if what == "nothing":
    graph._db.holders.mine()
elif what == "claim":
    graph.claim(100, token="t", lease_seconds={HOUR})
else:
    run = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds={HOUR})
    if what == "tidying":
        graph.publish(run, token="t", lease_seconds={HOUR})
if sys.argv[3:] == ["fork"] and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[SqliteGraphStore]:
    store = SqliteGraphStore(tmp_path / "graph.sqlite3")
    yield store
    store.close()


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    """Starts a process that leases for an hour and then waits."""
    with ExitStack() as ends:
        yield starter(HOLDER, str(tmp_path / "graph.sqlite3"), ends=ends)


def test_rows_of_a_killed_process_are_free_at_once(tmp_path: Path, graph: SqliteGraphStore, hold: Hold) -> None:
    graph.add(episodes(8))
    holder = hold("claim")
    assert graph.expire_leases(max_attempts=3) == 0, "it lives"
    assert graph.claim(100, token="u", lease_seconds=60) == []
    kill(holder)
    assert graph.expire_leases(max_attempts=3) == 8
    # as after any lost lease: in halves, so that a text that kills is found
    assert len(graph.claim(100, token="u", lease_seconds=60)) == 4
    assert graph.mark_embedded("t", dict.fromkeys(ids(episodes(8)), 1)) == set()
    assert [file.name for file in (tmp_path / "graph.sqlite3-holders").iterdir()] == [
        f"{graph._db.holders.mine()}.lock"
    ], "the dead process's file is gone"
    graph.close()
    assert list((tmp_path / "graph.sqlite3-holders").iterdir()) == []


def test_a_stopped_process_keeps_its_rows_until_their_time_is_over(
    tmp_path: Path, graph: SqliteGraphStore, hold: Hold
) -> None:
    graph.add(episodes(2))
    holder = hold("claim")
    holder.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_STOPPED, what="it is stopped")
    assert graph.expire_leases(max_attempts=3) == 0
    later = SqliteGraphStore(tmp_path / "graph.sqlite3", clock=lambda: START.replace(year=2100))
    assert later.expire_leases(max_attempts=3) == 2
    later.close()


def test_a_child_that_outlives_its_parent_holds_nothing_for_it(graph: SqliteGraphStore, hold: Hold) -> None:
    graph.add(episodes(2))
    holder = hold("claim", "fork")
    kill(holder)
    # the child may be so young that it has not let go of what it inherited
    until(lambda: graph.expire_leases(max_attempts=3) == 2, what="the leases are free")


def test_a_run_of_a_killed_process_is_taken_over_at_once(graph: SqliteGraphStore, hold: Hold) -> None:
    graph.add(episodes(2))
    embed(graph)
    holder = hold("run")
    (run,) = graph.running_runs()
    graph.expire_leases(max_attempts=3)
    with pytest.raises(Busy):
        graph.start_run(run.run_id, token="u", lease_seconds=60)
    kill(holder)
    graph.expire_leases(max_attempts=3)
    assert [waiting.run_id for waiting in graph.requested_runs(5)] == [run.run_id]
    assert graph.start_run(run.run_id, token="u", lease_seconds=60).status == "running"


def test_a_session_that_a_killed_process_tidied_up_is_free_at_once(graph: SqliteGraphStore, hold: Hold) -> None:
    graph.add(episodes(2))
    embed(graph)
    holder = hold("tidying")
    (published,) = graph.runs("s")
    graph.expire_leases(max_attempts=3)
    assert not graph.hold_run(published.run_id, token="u", lease_seconds=60)
    kill(holder)
    graph.expire_leases(max_attempts=3)
    assert graph.hold_run(published.run_id, token="u", lease_seconds=60)


def test_what_a_dead_process_left_is_removed_though_it_held_nothing(
    tmp_path: Path, graph: SqliteGraphStore, hold: Hold
) -> None:
    holder = hold("nothing")
    directory = tmp_path / "graph.sqlite3-holders"
    (left,) = directory.iterdir()
    half, fresh = directory / "half.new", directory / "fresh.new"
    half.touch()
    fresh.touch()
    os.utime(half, (time.time() - HOUR,) * 2)
    assert graph.expire_leases(max_attempts=3) == 0
    assert set(directory.iterdir()) == {left, fresh}, "one lives, and one may be taking its lock just now"
    kill(holder)
    assert graph.expire_leases(max_attempts=3) == 0
    assert set(directory.iterdir()) == {fresh}


def test_threads_of_a_process_take_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Holders._take

    def slowly(holders: Holders) -> None:
        time.sleep(0.05)
        take(holders)

    monkeypatch.setattr(Holders, "_take", slowly)
    holders = Holders(tmp_path / "holders")
    with ThreadPoolExecutor(4) as threads:
        names = {future.result() for future in [threads.submit(holders.mine) for _ in range(4)]}
    assert [file.stem for file in (tmp_path / "holders").iterdir()] == list(names)
    holders.leave()


def test_a_dead_run_that_nobody_restarts_is_written_down_once(
    tmp_path: Path, graph: SqliteGraphStore, hold: Hold
) -> None:
    graph.add(episodes(2))
    embed(graph)
    kill(hold("run"))
    graph.expire_leases(max_attempts=3)
    writer = sqlite3.connect(tmp_path / "graph.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    looked = threading.Thread(target=graph.expire_leases, kwargs={"max_attempts": 3})
    looked.start()
    looked.join(2)
    alive = looked.is_alive()
    writer.execute("ROLLBACK")
    writer.close()
    looked.join()
    assert not alive, "a look waits for no writer"
