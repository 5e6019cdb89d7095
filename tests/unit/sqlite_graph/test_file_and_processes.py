"""Damage, a full disk, locks, kill -9 and forks: a SQLite graph store names what is wrong and loses nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.contract.graphs import episodes, ids
from tests.processes import in_child
from tests.unit.sqlite_graph.files import sql
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.embedded.graph import SqliteGraphStore, database
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.graph.migrations import scripts


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
    def test_a_full_disk_is_noticed_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a block for its index SQLite is ended by the kernel: on ext4 with 15 kB free it was."""
        full = r"no space left for .*: 0\.0 MB are free, 1 MB are needed \(free some disk space; nothing stored"
        store, other = SqliteGraphStore(tmp_path / "graph.db"), SqliteGraphStore(tmp_path / "graph.db")
        store.add(episodes(2))
        monkeypatch.setattr(database, "_free", lambda directory: 15_000)
        with pytest.raises(StoreUnavailable, match=full):
            store.add(episodes(1, start=2))
        assert len(store.get(ids(episodes(2)))) == 2, "reading goes on"
        with pytest.raises(StoreUnavailable, match=full):
            other.counts()
        monkeypatch.undo()
        assert other.counts().acknowledged == 2
        store.add(episodes(1, start=2))
        store.close()
        other.close()

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
        sql(path, f"PRAGMA user_version = {len(scripts()) + 1}")
        with pytest.raises(ConfigurationError, match=rf"graph\.db has schema version {len(scripts()) + 1};.*\(upgrade"):
            SqliteGraphStore(path).ping()

    def test_another_programs_file_is_refused_and_left_alone(self, path: Path) -> None:
        path.parent.mkdir()
        sql(path, "CREATE TABLE theirs (x)")
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
from ww_core.stores.embedded.graph import SqliteGraphStore, database
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

    def test_a_statement_of_its_own_keeps_nobody_waiting_behind_it(self, graph: SqliteGraphStore, path: Path) -> None:
        graph.add(episodes(2))
        with graph._db.statement() as db:
            db.execute("UPDATE session SET acknowledged = acknowledged + 1")
            sql(path, "UPDATE session SET acknowledged = acknowledged + 1")
        assert graph.counts().acknowledged == 4
        with pytest.raises(StoreUnavailable), graph._db.statement() as db:
            db.execute("INSERT INTO fact SELECT 'a', 'b' UNION ALL SELECT 'a', 'c'")
        assert graph.facts("") == {}

    @pytest.mark.parametrize("mode", ["read", "write", "statement"])
    def test_a_fork_waits_for_transactions_and_the_child_starts_anew(self, graph: SqliteGraphStore, mode: str) -> None:
        """SQLite's view of the locks must not be inherited: the child would wait for ever for a lock nobody holds."""
        graph.add(episodes(1))
        inside, leave = threading.Event(), threading.Event()

        def hold() -> None:
            with getattr(graph._db, mode)() as db:
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

    def test_a_store_that_is_let_go_closes_its_file_also_where_it_was_opened_again(self, tmp_path: Path) -> None:
        for again in (False, True):
            store = SqliteGraphStore(tmp_path / f"{again}.db")
            store.ping()
            if again:
                store.close()
                store.ping()
            (connection,) = store._db._idle
            del store
            gc.collect()
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")

    def test_a_closed_store_opens_again(self, graph: SqliteGraphStore) -> None:
        graph.add(episodes(1))
        graph.close()
        assert graph.counts().acknowledged == 1
        assert len(graph._db._all) == 1
