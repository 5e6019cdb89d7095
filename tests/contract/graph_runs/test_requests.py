"""Runs are requested, started, held, taken over and cancelled without getting in each other's way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.contract.graph_runs.runs import LEASE, cluster, publish, put, start, state
from tests.contract.graphs import Clock, episodes
from ww_core.errors import Busy, NotFound
from ww_core.stores.ports import Dirty, GraphStore


class TestRequests:
    def test_a_run_whose_worker_is_gone_is_the_requested_one(self, graph: GraphStore, clock: Clock) -> None:
        run = start(graph)
        clock.advance(LEASE)
        assert graph.request_run("s").run_id == run.run_id
        assert [r.run_id for r in graph.requested_runs(9)] == [run.run_id]

    def test_a_session_has_one_requested_run_and_one_run_per_window(self, graph: GraphStore, clock: Clock) -> None:
        first = graph.request_run("s")
        assert (first.status, first.session_id, first.seq, first.requested_at) == ("requested", "s", 1, clock.now)
        assert graph.request_run("s") == first
        window = graph.request_run("s", window="2026-01-01T12")
        assert window.seq == 2
        assert window.window == "2026-01-01T12"
        clock.advance(1)
        started = graph.start_run(window.run_id, token="t", lease_seconds=LEASE)
        graph.finish_run(started, token="t")
        assert graph.request_run("s", window="2026-01-01T12").status == "done"
        assert graph.request_run("t", window="2026-01-01T12").run_id != window.run_id
        assert [r.run_id for r in graph.requested_runs(1)] == [first.run_id]
        assert len(graph.requested_runs(9)) == 2

    def test_what_does_not_exist_is_not_found(self, graph: GraphStore) -> None:
        calls: list[Callable[[], object]] = [
            lambda: graph.request_run("nobody"),
            lambda: graph.run("nobody"),
            lambda: graph.rollback_run("nobody"),
            lambda: graph.start_run("nobody", token="t", lease_seconds=1),
        ]
        for call in calls:
            with pytest.raises(NotFound, match="nobody"):
                call()
        assert graph.current_run("nobody") is None
        assert graph.prune_runs("nobody", 3) == []

    def test_one_run_of_a_session_at_a_time(self, graph: GraphStore) -> None:
        run = start(graph, "a")
        with pytest.raises(Busy, match=run.run_id):
            start(graph, "b")
        with pytest.raises(Busy):
            graph.start_run(run.run_id, token="b", lease_seconds=LEASE)
        start(graph, "c", session="t")
        graph.finish_run(replace(run, status="failed", error="E: x", sampled=3, seconds=1.5), token="a")

        ended = graph.run(run.run_id)
        assert (ended.status, ended.error, ended.sampled, ended.seconds) == ("failed", "E: x", 3, 1.5)
        with pytest.raises(Busy, match="failed"):
            graph.start_run(run.run_id, token="b", lease_seconds=LEASE)
        assert start(graph, "b").run_id != run.run_id

    def test_a_run_whose_lease_expired_is_taken_over_from_the_start(self, graph: GraphStore, clock: Clock) -> None:
        run = start(graph, "a")
        before = state(graph)
        graph.stage(run.run_id, token="a", memberships=[put("e00001", "lost")])
        clock.advance(LEASE - 1)
        assert graph.extend_run(run.run_id, token="a", lease_seconds=LEASE, progress=0.5)
        assert graph.run(run.run_id).progress == 0.5
        clock.advance(2)
        assert graph.requested_runs(9) == []
        clock.advance(LEASE)
        assert [r.run_id for r in graph.requested_runs(9)] == [run.run_id]

        again = graph.start_run(run.run_id, token="b", lease_seconds=LEASE)

        assert not graph.stage(run.run_id, token="a", memberships=[put("e00002", "late")])
        assert not graph.extend_run(run.run_id, token="a", lease_seconds=LEASE, progress=0.9)
        assert not graph.publish(run, token="a")
        assert not graph.finish_run(run, token="a")
        assert state(graph) == before
        assert graph.publish(replace(again, clusters=()), token="b")
        assert graph.memberships("s") == []

    def test_a_cancelled_run_is_over_and_leaves_nothing(self, graph: GraphStore) -> None:
        publish(graph, [put("e00000", "c1")], [cluster("c1")])
        before = state(graph)
        running = start(graph)
        assert graph.stage(running.run_id, token="t", memberships=[put("e00001", "c2"), put("e00000", "c2")])
        assert graph.cancel_run(running.run_id).status == "cancelled"
        assert not graph.stage(running.run_id, token="t", memberships=[put("e00002", "c2")])
        assert not graph.extend_run(running.run_id, token="t", lease_seconds=LEASE, progress=0.5)
        assert not graph.publish(replace(running, status="done"), token="t")
        assert state(graph) == before
        with pytest.raises(Busy, match="cancelled already"):
            graph.cancel_run(running.run_id)
        with pytest.raises(NotFound):
            graph.cancel_run("nobody")
        assert graph.cancel_run(graph.request_run("s").run_id).status == "cancelled"
        assert graph.requested_runs(10) == []

    def test_a_returned_run_waits_for_another_worker_and_nothing_of_it_stays(self, graph: GraphStore) -> None:
        publish(graph, [put("e00000", "c1")], [cluster("c1")])
        before = state(graph)
        run = start(graph)
        assert graph.stage(run.run_id, token="t", memberships=[put("e00001", "c2"), put("e00000", "c2")])
        assert not graph.return_run(run.run_id, token="other")
        assert graph.return_run(run.run_id, token="t")
        assert graph.run(run.run_id).status == "requested"
        assert state(graph) == before
        assert graph.running_runs() == []
        assert not graph.stage(run.run_id, token="t", memberships=[put("e00002", "c2")])
        assert not graph.return_run(run.run_id, token="t")
        assert start(graph, "u").run_id == run.run_id, "the session is free at once"

    def test_a_published_run_is_not_returned(self, graph: GraphStore) -> None:
        run = start(graph)
        assert graph.publish(replace(run, status="done"), token="t", lease_seconds=LEASE)
        assert not graph.return_run(run.run_id, token="t")
        assert graph.run(run.run_id).status == "done"

    def test_a_run_that_nobody_works_on_any_more_is_read_as_requested(self, graph: GraphStore, clock: Clock) -> None:
        run = start(graph)
        other = start(graph, session="t")
        clock.advance(LEASE - 1)
        assert graph.extend_run(other.run_id, token="t", lease_seconds=LEASE, progress=0.5)
        assert {r.status for r in graph.runs()} == {"running"}
        clock.advance(2)
        assert {r.run_id: r.status for r in graph.runs()} == {run.run_id: "requested", other.run_id: "running"}
        assert graph.run(run.run_id).status == graph.runs("s")[0].status == "requested"
        assert [r.status for r in graph.requested_runs(9)] == ["requested"]

    def test_runs_under_a_live_lease_are_told_apart(self, graph: GraphStore, clock: Clock) -> None:
        first, second = start(graph), start(graph, "u", "t")
        graph.request_run("s")
        assert [run.run_id for run in graph.running_runs()] == [first.run_id, second.run_id]
        assert graph.extend_run(second.run_id, token="u", lease_seconds=10 * LEASE, progress=0.5)
        clock.advance(LEASE + 1)
        (running,) = graph.running_runs()
        assert (running.run_id, running.progress) == (second.run_id, 0.5)

    def test_a_run_that_was_slow_cannot_publish_over_a_later_one(self, graph: GraphStore, clock: Clock) -> None:
        slow = start(graph, "a")
        graph.stage(slow.run_id, token="a", memberships=[put("e00000", "slow"), put("e00001", "slow")])
        clock.advance(LEASE)
        quick = graph.start_run(graph.request_run("s", window="w").run_id, token="b", lease_seconds=LEASE)
        graph.stage(quick.run_id, token="b", memberships=[put("e00000", "quick")])
        graph.publish(quick, token="b")

        assert not graph.publish(slow, token="a")
        assert [(m.episode_id, m.cluster_id) for m in graph.memberships("s")] == [("e00000", "quick")]
        # its turn comes again
        again = graph.start_run(slow.run_id, token="c", lease_seconds=LEASE)
        graph.stage(slow.run_id, token="c", memberships=[put("e00001", "third")])
        graph.publish(again, token="c")
        assert {m.cluster_id for m in graph.memberships("s")} == {"quick", "third"}

    def test_runs_are_listed_newest_first(self, graph: GraphStore) -> None:
        runs = [publish(graph, []).run_id for _ in range(3)]
        other = start(graph, session="t").run_id
        assert [r.run_id for r in graph.runs("s")] == runs[::-1]
        assert [r.run_id for r in graph.runs(limit=2)] == [other, runs[2]]
        assert [r.seq for r in graph.runs("s")] == [3, 2, 1]
        assert graph.current_attempts() == {"s": graph.run(runs[2]).attempt}
        assert graph.current_attempts(["t", "nobody"]) == {}


class TestAttempts:
    def test_each_start_of_a_run_is_an_attempt_of_its_own(self, graph: GraphStore, clock: Clock) -> None:
        requested = graph.request_run("s")
        assert requested.attempt == ""
        first = graph.start_run(requested.run_id, token="a", lease_seconds=LEASE)
        clock.advance(LEASE)
        second = graph.start_run(requested.run_id, token="b", lease_seconds=LEASE)
        assert first.attempt != second.attempt == graph.run(requested.run_id).attempt
        other = start(graph, session="t")
        asked = [first.attempt, second.attempt, other.attempt, requested.run_id, "nobody.1", "", "x.²"]
        assert graph.live_attempts([]) == set()
        assert graph.live_attempts(asked) == {second.attempt, other.attempt}
        assert graph.publish(second, token="b")
        assert graph.cancel_run(other.run_id).status == "cancelled"
        assert graph.live_attempts(asked) == {second.attempt} == set(graph.current_attempts().values())
        graph.rollback_run(second.run_id)
        assert graph.live_attempts(asked) == set()

    def test_an_erasure_ends_an_attempt(self, graph: GraphStore) -> None:
        run = start(graph)
        graph.tombstone(episode_ids=["e00000"])
        assert graph.live_attempts([run.attempt]) == set()


class TestTidying:
    def test_a_published_run_keeps_its_session_until_it_has_tidied_up(self, graph: GraphStore, clock: Clock) -> None:
        run = start(graph)
        assert graph.publish(replace(run, status="done"), token="t", lease_seconds=LEASE)
        assert graph.running_runs() == []
        assert graph.requested_runs(9) == []
        later = graph.request_run("s")
        with pytest.raises(Busy, match=run.run_id):
            graph.start_run(later.run_id, token="u", lease_seconds=LEASE)
        with pytest.raises(Busy, match=run.run_id):
            graph.rollback_run(run.run_id)
        assert not graph.hold_run(run.run_id, token="other", lease_seconds=LEASE)
        clock.advance(LEASE - 1)
        assert graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        clock.advance(LEASE - 1)
        graph.release_run(run.run_id, token="other")
        with pytest.raises(Busy):
            graph.start_run(later.run_id, token="u", lease_seconds=LEASE)
        graph.release_run(run.run_id, token="t")
        assert graph.start_run(later.run_id, token="u", lease_seconds=LEASE).status == "running"
        assert not graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        graph.release_run(later.run_id, token="u")
        assert graph.extend_run(later.run_id, token="u", lease_seconds=LEASE, progress=0.5), "that is no tidying"

    def test_a_lease_that_ran_out_is_taken_over(self, graph: GraphStore, clock: Clock) -> None:
        run = start(graph)
        assert graph.publish(replace(run, status="done"), token="t", lease_seconds=LEASE)
        clock.advance(LEASE)
        assert graph.hold_run(run.run_id, token="sweep", lease_seconds=LEASE)
        assert not graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        clock.advance(LEASE)
        start(graph, "u")
        assert not graph.hold_run(run.run_id, token="sweep", lease_seconds=LEASE)

    def test_only_the_visible_run_is_held_and_one_that_died_is_requested_again(
        self, graph: GraphStore, clock: Clock
    ) -> None:
        old, run = publish(graph, []), publish(graph, [])
        died = start(graph, "u")
        assert not graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        clock.advance(LEASE)
        assert not graph.hold_run(old.run_id, token="t", lease_seconds=LEASE)
        assert not graph.hold_run("nobody", token="t", lease_seconds=LEASE)
        assert graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        assert graph.run(died.run_id).status == "requested"
        assert not graph.extend_run(died.run_id, token="u", lease_seconds=LEASE, progress=0.5)

    def test_whoever_holds_the_session_takes_the_run_back_and_goes_on_holding(self, graph: GraphStore) -> None:
        run = publish(graph, [put("e00000", "a")])
        assert graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        assert graph.rollback_run(run.run_id, token="t").status == "rolled_back"
        assert graph.hold_run(run.run_id, token="t", lease_seconds=LEASE)
        with pytest.raises(Busy):
            start(graph, "u")
        graph.release_run(run.run_id, token="t")
        start(graph, "u")

    def test_a_payload_that_may_be_wrong_is_marked(self, graph: GraphStore) -> None:
        graph.add(episodes(1, session="t", prefix="new"))
        graph.mark_payload(["e00001", "e00003", "new00000", "nobody"])
        graph.mark_payload([])
        assert sorted(row.episode.episode_id for row in graph.dirty(Dirty.PAYLOAD, 9)) == ["e00001", "e00003"]
