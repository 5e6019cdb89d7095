"""A process that dies within a change of a SQLite graph store leaves the old state or the new one."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.graphs import Clock, embed, episodes, ids
from tests.processes import in_child
from tests.unit.sqlite_graph.files import LEASE
from ww_core.models import Cluster, Run
from ww_core.stores.embedded.graph import SqliteGraphStore, leftovers
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.ports import Membership


class TestCrashes:
    """A process that dies before or after any commit leaves the old state or the new one."""

    @pytest.fixture(autouse=True)
    def _short_steps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(leftovers, "STEP", 2)
        monkeypatch.setattr(leftovers, "SEEN", 2)
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
