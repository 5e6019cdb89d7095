"""What only the SQLite graph store has: its file, its processes, its indexes, and what is left in it after erasure."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.graphs import Clock, claimed, embed, episodes, ids
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.models import Cluster, Run
from ww_core.stores.embedded.graph import SqliteGraphStore, dirt, leftovers
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.graph.migrations import scripts
from ww_core.stores.ports import CONTEXT_NEIGHBOURS, Dirty, Membership

LEASE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "graph.db"


@pytest.fixture
def graph(path: Path) -> Iterator[SqliteGraphStore]:
    store = SqliteGraphStore(path, clock=Clock())
    yield store
    store.close()


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # whatever it is, the child must not return into the test
            os._exit(99)
    return os.waitpid(pid, 0)[1]


def _open_at_once(directory: Path, together: Any, failures: Any) -> None:
    for turn in range(25):
        together.wait(60)
        store = SqliteGraphStore(directory / f"{turn}.db")
        try:
            store.ping()
        except StoreUnavailable as error:
            failures.put(str(error))
        store.close()


class TestTheFile:
    def test_several_processes_may_be_the_first_to_open_it(self, tmp_path: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        together, failures = spawn.Barrier(4), spawn.Queue()
        processes = [spawn.Process(target=_open_at_once, args=(tmp_path, together, failures)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
        assert [process.exitcode for process in processes] == [0] * 4
        assert failures.empty(), failures.get()

    def test_a_newer_version_is_refused(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.ping()
        graph.close()
        _sql(path, f"PRAGMA user_version = {len(scripts()) + 1}")
        with pytest.raises(ConfigurationError, match=rf"graph\.db has schema version {len(scripts()) + 1};.*\(upgrade"):
            SqliteGraphStore(path).ping()

    def test_another_programs_file_is_refused_and_left_alone(self, path: Path) -> None:
        path.parent.mkdir()
        _sql(path, "CREATE TABLE theirs (x)")
        before = path.read_bytes()
        with pytest.raises(ConfigurationError, match="another program"):
            SqliteGraphStore(path).ping()
        assert b"episode_outbox" not in path.read_bytes()
        assert len(path.read_bytes()) == len(before)

    @pytest.mark.parametrize("content", [b"this is no database " * 500, b"SQLite format 3\x00" + b"\xff" * 8000])
    def test_a_damaged_file_is_named(self, path: Path, content: bytes) -> None:
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(StoreUnavailable, match=r"graph\.db is damaged") as caught:
            SqliteGraphStore(path).ping()
        assert "\n" not in str(caught.value)

    def test_damage_in_the_middle_is_named(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.add(episodes(2000))
        graph.close()
        with path.open("r+b") as file:
            file.seek(4096 * 3)
            file.write(b"\xff" * 4096 * 60)
        with pytest.raises(StoreUnavailable, match=r"graph\.db is damaged.*restore"):
            SqliteGraphStore(path).get(ids(episodes(2000)))

    def test_a_full_disk_refuses_and_loses_nothing(self, graph: SqliteGraphStore) -> None:
        graph.add(episodes(100))

        def fill() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            before = graph.counts().acknowledged
            stored = before
            with suppress(StoreUnavailable):
                for start in range(100, 50_000, 500):
                    graph.add(episodes(500, start=start))
                    stored += 500
            with pytest.raises(StoreUnavailable, match=r"graph\.db.*\(.+\)"):
                graph.add(episodes(5000, start=stored))
            assert graph.counts().acknowledged == stored

        assert in_child(fill) == 0
        counts = graph.counts()
        assert counts.acknowledged >= 100
        assert counts.balanced

    def test_no_space_left_is_said_so(self, graph: SqliteGraphStore, monkeypatch: pytest.MonkeyPatch) -> None:
        graph.add(episodes(100))
        original = Database._open

        def tiny(self: Database) -> sqlite3.Connection:
            connection = original(self)
            connection.execute("PRAGMA max_page_count = 60")
            return connection

        graph.close()
        monkeypatch.setattr(Database, "_open", tiny)
        with pytest.raises(StoreUnavailable, match=r"no space left for .*graph\.db.*free some disk space"):
            graph.add(episodes(5000, start=100))
        assert graph.counts().acknowledged == 100
        graph.add(episodes(1, start=100))

    def test_a_read_only_place_is_named(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            graph = SqliteGraphStore(directory / "graph.db")
            graph.add(episodes(1))
            graph.close()
            directory.chmod(0o555)
            (directory / "graph.db").chmod(0o444)

            def use() -> None:
                if os.geteuid() == 0:
                    os.setuid(65534)  # root may write everywhere
                with pytest.raises(StoreUnavailable, match=r"graph\.db cannot be written.*data_dir"):
                    graph.add(episodes(1, start=1))
                with pytest.raises(StoreUnavailable, match=f"cannot create {name}/deeper.*data_dir"):
                    SqliteGraphStore(directory / "deeper" / "graph.db").ping()

            assert in_child(use) == 0
            directory.chmod(0o755)

    def test_a_path_that_is_a_directory_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailable, match=str(tmp_path)):
            SqliteGraphStore(tmp_path).ping()

    def test_a_store_in_the_way_is_waited_for_only_so_long(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.ping()
        graph._db._lock_timeout = 0.2
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match=r"graph\.db was locked for 0\.2 s"):
            graph.add(episodes(1))
        assert graph.counts().acknowledged == 0
        other.execute("ROLLBACK")
        other.close()
        assert len(graph.add(episodes(1))) == 1

    def test_two_processes_may_create_it_at_once(self, path: Path) -> None:
        start = threading.Barrier(4)
        stores = [SqliteGraphStore(path) for _ in range(4)]
        errors: list[Exception] = []

        def create(store: SqliteGraphStore) -> None:
            start.wait()
            try:
                store.ping()
            except StoreUnavailable as error:
                errors.append(error)

        threads = [threading.Thread(target=create, args=(store,)) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for store in stores:
            store.close()
        assert errors == []


class TestProcesses:
    def test_an_acknowledged_episode_survives_kill_9(self, path: Path) -> None:
        code = """
import sys
from pathlib import Path
from tests.contract.graphs import episodes
from ww_core.stores.embedded.graph import SqliteGraphStore
graph = SqliteGraphStore(Path(sys.argv[1]))
for i in range(0, 100_000, 10):
    graph.add(episodes(10, start=i))
    print(i + 10, flush=True)
"""
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(30):
            process.stdout.readline()
        process.kill()
        acknowledged = int(["300", *process.stdout.read().split()][-1])
        process.wait()
        process.stdout.close()

        graph = SqliteGraphStore(path)
        counts = graph.counts()
        assert acknowledged <= counts.acknowledged <= acknowledged + 10
        assert counts.balanced
        assert len(graph.get(ids(episodes(acknowledged)))) == acknowledged
        graph.close()

    def test_every_commit_is_synced(self, graph: SqliteGraphStore) -> None:
        with graph._db.read() as db:
            assert db.execute("PRAGMA synchronous").fetchone() == (2,)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("PRAGMA secure_delete").fetchone() == (1,)

    @pytest.mark.parametrize("mode", ["read", "write"])
    def test_a_fork_waits_for_transactions_and_the_child_starts_anew(self, graph: SqliteGraphStore, mode: str) -> None:
        """SQLite's view of the locks must not be inherited: the child would wait for ever for a lock nobody holds."""
        graph.add(episodes(1))
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with graph._db.read() if mode == "read" else graph._db.write() as db:
                db.execute("SELECT count(*) FROM episode").fetchone()
                inside.set()
                leave.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait(20)
        threading.Timer(0.05, leave.set).start()

        def work() -> None:
            assert len(graph._db._all) == 0
            graph.add(episodes(1, start=1))
            assert graph._db.wipe()

        assert in_child(work) == 0
        thread.join()
        graph.add(episodes(1, start=2))
        assert graph.counts().acknowledged == 3

    def test_a_parent_that_closes_does_not_take_the_log_from_its_child(
        self, graph: SqliteGraphStore, path: Path
    ) -> None:
        graph.add(episodes(1))
        go, ready = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            graph.add(episodes(10, start=1))
            os.write(ready[1], b".")
            os.read(go[0], 1)
            os._exit(0 if len(graph.add(episodes(10, start=11))) == 10 else 1)
        os.read(ready[0], 1)
        graph.ping()
        # were the child's lock not real, this would be the last one to leave, and delete the log that the child writes
        graph.close()
        os.write(go[1], b".")
        assert os.waitpid(pid, 0)[1] == 0
        for descriptor in (*go, *ready):
            os.close(descriptor)
        assert graph.counts().acknowledged == 21

    def test_a_closed_store_opens_again(self, graph: SqliteGraphStore) -> None:
        graph.add(episodes(1))
        graph.close()
        assert graph.counts().acknowledged == 1
        assert len(graph._db._all) == 1


class TestErasure:
    def test_no_byte_of_an_erased_episode_is_left(self, graph: SqliteGraphStore, path: Path) -> None:
        """Contents, contexts, errors, labels and phrases of any size, rewritten, died, published and rolled back."""
        marker = "XQZZYMARKER"
        batch = [
            replace(e, content=f"{marker}{i}END " + "filler " * (i * 13 % 50), context={"key": f"{marker}{i}END"})
            for i, e in enumerate(episodes(600))
        ]
        graph.add(batch)
        for i in range(0, 600, 4):
            graph.update(batch[i].episode_id, content=f"{marker}{i}END " + "longer " * (i * 31 % 400))
        rows = claimed(graph.claim(600, token="t", lease_seconds=LEASE))
        for i, name in enumerate(rows[:40]):
            graph.fail("t", name, error=f"E: {marker}{i}END", traceback="tail " * i, max_attempts=1, delay_seconds=0)
        graph.replay(rows[:20])
        graph.mark_embedded("t", dict.fromkeys(rows[40:], 1))
        for turn in range(4):
            run = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds=LEASE)
            members = [Membership(name, f"c{i % 5}", None, turn / 8) for i, name in enumerate(rows[40:])]
            graph.stage(run.run_id, token="t", memberships=members)
            clusters = tuple(
                Cluster(f"c{i}", "s", f"{marker}{40 + i}END {turn}", 112, ("other", f"{marker}{45 + i}END"))
                for i in range(5)
            )
            graph.publish(replace(run, clusters=clusters), token="t")
        graph.rollback_run(run.run_id)
        assert _found(path, marker) == {str(i) for i in range(600)}

        some = random.Random(1).sample(range(600), 300)
        graph.tombstone(episode_ids=[batch[i].episode_id for i in some])

        assert _found(path, marker) == {str(i) for i in range(600)} - {str(i) for i in some}
        graph.tombstone(session_id="s")
        assert _found(path, marker) == set()
        assert graph.counts().balanced

    def test_the_log_is_emptied_later_where_a_reader_is_in_the_way(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.add([replace(episodes(1)[0], content="XQZZYMARKER1END")])
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM episode").fetchone()
        assert graph.tombstone(episode_ids=["e00000"])[0] == ["e00000"]
        assert _found(path, "XQZZYMARKER") == {"1"}
        reader.execute("ROLLBACK")
        reader.close()

        assert graph.unfinished_tombstones(9) == ["e00000"]

        assert _found(path, "XQZZYMARKER") == set()

    def test_a_stopped_reader_in_the_way_of_an_erasure_holds_nobody_up(
        self, graph: SqliteGraphStore, path: Path
    ) -> None:
        graph.add(episodes(1))
        other = SqliteGraphStore(path, clock=Clock())
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM episode").fetchone()
        erasing = threading.Thread(target=lambda: graph.tombstone(episode_ids=["e00000"]))
        slowest, number = 0.0, 1
        erasing.start()
        while erasing.is_alive():
            started = time.monotonic()
            other.add(episodes(1, start=number))
            slowest, number = max(slowest, time.monotonic() - started), number + 1
        reader.close()
        other.close()
        assert slowest < 5, "waiting for the reader took the lock that writers need"


class TestCrashes:
    """A process that dies before or after any commit leaves the old state or the new one."""

    @pytest.fixture(autouse=True)
    def _short_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leftovers, "STEP", 2)
        monkeypatch.setattr("ww_core.stores.embedded.graph.history.STEP", 2)

    @pytest.mark.parametrize("work", ["publish", "rollback", "takeover", "prune"])
    def test_nothing_is_ever_half_done(self, tmp_path: Path, work: str) -> None:
        origin = tmp_path / "origin"
        graph = SqliteGraphStore(origin / "graph.db", clock=Clock())
        graph.add(episodes(8))
        embed(graph)
        first = self._publish(graph, "a", range(5))
        second = self._publish(graph, "b", range(2, 7))
        staged = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds=LEASE)
        graph.stage(staged.run_id, token="t", memberships=[Membership(n, "c", "c", 0.5) for n in ids(episodes(8))])
        if work in ("rollback", "prune"):
            graph.finish_run(replace(staged, status="failed"), token="t")
        graph.close()

        def act(store: SqliteGraphStore) -> None:
            match work:
                case "publish":
                    store.publish(replace(staged, clusters=(Cluster("c", "s", "c", 8),)), token="t")
                case "rollback":
                    store.rollback_run(second.run_id)
                case "takeover":
                    store.start_run(staged.run_id, token="u", lease_seconds=LEASE)
                case "prune":
                    store.prune_runs("s", 1)

        late = Clock()
        late.advance(LEASE)
        old, new = self._open_copy(origin, tmp_path / "old", late), self._open_copy(origin, tmp_path / "new", late)
        act(new)
        before, after = self._state(old), self._state(new)
        assert (before == after) == (work in ("takeover", "prune"))
        crashes = 0
        for step in range(100):
            store = self._open_copy(origin, tmp_path / f"step{step}", late)
            with _dying(step):
                status = in_child(lambda store=store: act(store))  # type: ignore[misc]
            crashes += status != 0
            assert self._state(store) in (before, after), f"after commit {step}"
            if self._state(store) == before:
                late.advance(LEASE)
                act(store)
            assert self._state(store) == after
            if work == "publish":
                store.rollback_run(staged.run_id)
                assert self._state(store) == before
            store.close()
            if status == 0:
                break
        assert crashes > 1
        old.close()
        new.close()
        assert first.status == "running"

    def _publish(self, graph: SqliteGraphStore, name: str, which: range) -> Run:
        run = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds=LEASE)
        members = [Membership(f"e{i:05d}", name, name, 0.5) for i in which]
        graph.stage(run.run_id, token="t", memberships=members)
        graph.publish(replace(run, clusters=(Cluster(name, "s", name, len(which)),)), token="t")
        return run

    def _open_copy(self, origin: Path, copy: Path, clock: Clock) -> SqliteGraphStore:
        shutil.copytree(origin, copy)
        return SqliteGraphStore(copy / "graph.db", clock=clock)

    def _state(self, graph: SqliteGraphStore) -> object:
        current = graph.current_run("s")
        assert current is not None
        fresh = ids(graph.unconsolidated("s", limit=99))
        assert graph.count_unconsolidated().get("s", 0) == len(fresh)
        return graph.memberships("s"), fresh, current.run_id, current.clusters


def test_clearing_for_a_run_that_was_overtaken_leaves_the_later_run_alone(graph: SqliteGraphStore) -> None:
    graph.add(episodes(3))
    embed(graph)
    later = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds=LEASE)
    graph.stage(later.run_id, token="t", memberships=[Membership("e00000", "c", "c", 0.5)])

    # a process that took the session over before, and was stopped until now
    leftovers.clear_leftovers(graph._db, 1, upto=1)

    graph.publish(later, token="t")
    assert [m.episode_id for m in graph.memberships("s")] == ["e00000"]


class TestCost:
    """Queries that must not grow with what is stored."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda g: g.claim(5, token="x", lease_seconds=9),
            lambda g: g.has_work(),
            lambda g: g.expire_leases(max_attempts=3),
            lambda g: g.unconsolidated("s", limit=5),
            lambda g: g.count_unconsolidated(),
            lambda g: g.count_unconsolidated("s"),
            lambda g: g.settled(5),
            lambda g: g.oldest_pending(),
            lambda g: g.neighbours("e00003", before=2, after=2),
            lambda g: g.around(["e00003"], reach=2),
            lambda g: g.get(["e00003"]),
            lambda g: g.current_attempts(["s"]),
            lambda g: g.requested_runs(5),
            lambda g: g.memberships("s", limit=5),
            lambda g: g.memberships("s", limit=5, cluster_id="c"),
            lambda g: g.mark_embedded("t", {"e00003": 1}),
            lambda g: g.stage("r", token="t", memberships=[]),
            lambda g: g.dirty(Dirty.PAYLOAD, 5),
            lambda g: g.update("e00003", content="new"),
            lambda g: g.tombstone(episode_ids=["e00003"]),
        ],
    )
    def test_no_table_that_grows_is_scanned(
        self, graph: SqliteGraphStore, call: Callable[[SqliteGraphStore], object]
    ) -> None:
        graph.add(episodes(9))
        graph.claim(6, token="t", lease_seconds=LEASE)
        graph.request_run("s")
        seen: list[str] = []
        with graph._db.read() as db:
            db.set_trace_callback(seen.append)
        call(graph)
        db.set_trace_callback(None)

        plans = [
            step[3]
            for query in dict.fromkeys(seen)
            if query.lstrip()[:6].upper() in ("SELECT", "UPDATE", "DELETE")
            for step in graph._db._all.copy().pop().execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
        ]
        assert plans
        growing = ("e", "episode", "b", "body", "m", "membership", "o", "p", "n", "d", "q")
        scans = [plan for plan in plans if plan.startswith("SCAN ") and plan.split()[1] in growing]
        assert [plan for plan in scans if "INDEX episode_outbox" not in plan] == []

    def test_neighbours_cost_the_same_in_a_large_batch_of_one_moment(self, graph: SqliteGraphStore) -> None:
        def work() -> int:
            done: list[int] = []
            with graph._db.read() as db:
                seqs = [seq for (seq,) in db.execute("SELECT seq FROM episode ORDER BY position LIMIT 20 OFFSET 100")]
                db.set_progress_handler(lambda: done.append(1), 10)
                found = dirt.neighbours_of(db, seqs)
                db.set_progress_handler(None, 0)
            assert len(found) == len(seqs) + 2 * CONTEXT_NEIGHBOURS
            return len(done)

        moment = episodes(1)[0].timestamp
        graph.add([replace(episode, timestamp=moment) for episode in episodes(200)])
        embed(graph)
        few = work()
        graph.add([replace(episode, timestamp=moment) for episode in episodes(3800, start=200)])
        assert work() < 2 * few

    def test_counting_reads_no_rows(self, graph: SqliteGraphStore) -> None:
        graph.add(episodes(9))
        with graph._db.read() as db:
            for query in (
                "SELECT count(*) FROM episode e",
                "SELECT count(*) FROM episode e WHERE e.lease = 0",
                "SELECT count(*) FROM episode e WHERE e.state >= 3 AND e.state = 4",
            ):
                (plan,) = (step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {query}"))
                assert "COVERING INDEX" in plan

    def test_a_row_that_vanished_unbalances_the_account(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.add(episodes(3))
        embed(graph, 2)
        graph.close()
        _sql(path, "DELETE FROM episode WHERE episode_id = 'e00001'")
        graph.add(episodes(2, start=10))
        assert not graph.counts().balanced
        assert not graph.counts("s").balanced


@contextmanager
def _dying(commits: int) -> Iterator[None]:
    """Any write after the given number of commits kills the process before it commits."""
    original = Database.write

    @contextmanager
    def write(self: Database) -> Iterator[sqlite3.Connection]:
        nonlocal commits
        with original(self) as connection:
            yield connection
            if commits == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            commits -= 1

    Database.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        Database.write = original  # type: ignore[method-assign]


def _sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def _found(path: Path, marker: str) -> set[str]:
    """The numbers whose marker is in any file of the store, in any case of letters.

    Read by another process: closing a file here would drop our locks on it.
    """
    command = ["grep", "-a", "-o", "-h", "-i", f"{marker}[0-9]*END", *map(str, sorted(path.parent.iterdir()))]
    output = subprocess.run(command, capture_output=True, check=False).stdout.decode()
    return {line[len(marker) : -len("END")] for line in output.split()}
