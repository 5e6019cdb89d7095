"""Queries of a SQLite graph store use indexes: they do not grow with what is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.graphs import embed, episodes
from tests.unit.sqlite_graph.files import LEASE, sql
from ww_core.stores.embedded.graph import SqliteGraphStore, dirt
from ww_core.stores.ports import CONTEXT_NEIGHBOURS, Dirty


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
            lambda g: g.standing(),
            lambda g: g.memberships("s", limit=5),
            lambda g: g.memberships("s", limit=5, cluster_id="c"),
            lambda g: g.mark_embedded("t", {"e00003": 1}),
            lambda g: g.stage("r", token="t", memberships=[]),
            lambda g: g.dirty(Dirty.PAYLOAD, 5),
            lambda g: g.update("e00003", content="new"),
            lambda g: g.tombstone(episode_ids=["e00003"]),
            lambda g: g.index_texts("s", limit=5),
            lambda g: g.copies("s", [bytes(16)]),
        ],
    )
    def test_no_table_that_grows_is_scanned(
        self, graph: SqliteGraphStore, call: Callable[[SqliteGraphStore], object]
    ) -> None:
        graph.add(episodes(9))
        graph.claim(6, token="t", lease_seconds=LEASE)
        run = graph.start_run(graph.request_run("s").run_id, token="r", lease_seconds=LEASE)
        graph.publish(run, token="r")
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
        growing = ("e", "episode", "b", "body", "m", "membership", "o", "p", "n", "d", "q", "k", "digest")
        scans = [plan for plan in plans if plan.startswith("SCAN ") and plan.split()[1] in growing]
        assert [plan for plan in scans if "INDEX episode_outbox" not in plan] == []

    def test_neighbours_cost_the_same_in_a_large_batch_of_one_moment(self, graph: SqliteGraphStore) -> None:
        def steps() -> tuple[int, int]:
            """Of marking twenty rows in the middle, and of reading around them."""
            query, done = "SELECT seq, episode_id FROM episode ORDER BY position LIMIT 20 OFFSET 100", [0, 0]

            def count(kind: int) -> None:
                done[kind] += 1

            with graph._db.read() as db:
                seqs, names = zip(*db.execute(query), strict=True)
                db.set_progress_handler(lambda: count(0), 10)
                assert len(dirt.neighbours_of(db, seqs)) == len(seqs) + 2 * CONTEXT_NEIGHBOURS
                db.set_progress_handler(lambda: count(1), 10)
            assert all(None not in beside for beside in graph.around(names, reach=2).values())
            db.set_progress_handler(None, 0)
            return done[0], done[1]

        moment = episodes(1)[0].timestamp
        graph.add([replace(episode, timestamp=moment) for episode in episodes(200)])
        embed(graph)
        few = steps()
        graph.add([replace(episode, timestamp=moment) for episode in episodes(3800, start=200)])
        assert min(few) > 0, "both were counted"
        assert all(many < 2 * before for many, before in zip(steps(), few, strict=True))

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
        sql(path, "DELETE FROM episode WHERE episode_id = 'e00001'")
        graph.add(episodes(2, start=10))
        assert not graph.counts().balanced
        assert not graph.counts("s").balanced
