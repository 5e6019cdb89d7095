"""Runs are visible at once or not at all, and taken back exactly, whatever happens in between."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.contract.graph_runs.runs import LEASE, cluster, publish, put, start, state
from tests.contract.graphs import START, Clock, clear, embed, episodes, ids
from ww_core.errors import Busy, InvalidInput
from ww_core.models import Episode, Fold, Medoid, of_attempt
from ww_core.stores.ports import Dirty, GraphStore, Membership, Moved, Standing


class TestVisibility:
    def test_nothing_is_visible_before_publication_and_everything_after(self, graph: GraphStore) -> None:
        before = state(graph)
        assert before == ([], ids(episodes(8)), None, None)
        run = start(graph)
        staged = [put(name, "c1" if i < 5 else None) for i, name in enumerate(ids(episodes(7)))]
        staged[6] = put("e00006", "c1", 0.5, "e00000")
        graph.stage(run.run_id, token="t", memberships=staged[:4])
        graph.stage(run.run_id, token="t", memberships=staged[4:])
        assert state(graph) == before
        assert graph.get(["e00000"])["e00000"].cluster_id is None
        assert graph.current_attempts() == {}

        clusters = (
            cluster(
                "c1",
                6,
                keyphrases=("disk full", "ü"),
                medoid=Medoid("e00002", "ignored"),
                change="merged",
                parents=("p1", "p2"),
                radius=0.3,
                exemplars=("e00002", "e00000"),
                cohesion=0.7,
                clustered_size=5,
                strays=1,
                theme_id="t1",
            ),
            cluster("c0", 0, change="gone", created_at=None),
        )
        assert graph.publish(replace(run, status="done", clusters=clusters, assigned=7), token="t")

        members, fresh, run_id, seen = state(graph)
        assert members == staged
        assert (fresh, run_id) == (["e00007"], run.run_id)
        assert seen == (replace(clusters[0], medoid=Medoid("e00002", "text 2 of s")), clusters[1])
        found = graph.get(["e00000", "e00005", "e00006", "e00007"])
        assert [(e.cluster_id, e.nearest, e.duplicate_of) for e in found.values()] == [
            ("c1", "c1", None),
            (None, "near", None),
            ("c1", "c1", "e00000"),
            (None, None, None),
        ]
        assert graph.run(run.run_id).clusters == seen
        assert graph.run(run.run_id).assigned == 7
        assert graph.sessions()[0].clusters == 1
        assert graph.memberships("t") == []

    def test_what_stands_is_counted_over_the_visible_runs_of_all_sessions(self, graph: GraphStore) -> None:
        assert graph.standing() == Standing()
        found = (cluster("c1", 3, change="merged"), cluster("c2", 2), cluster("c0", 0, change="gone"))
        run = start(graph)
        assert graph.standing() == Standing(), "nothing is visible yet"
        figures = {"considered": 6, "noise": 1, "sampled": 5, "seconds": 0.5}
        graph.stage(run.run_id, token="t", memberships=[put("e00000", "c1"), put("e00001", "c2")])
        graph.publish(replace(run, status="done", clusters=found, **figures), token="t")
        first = Standing(1, clusters=2, merged=1, **figures)
        assert graph.standing() == first
        other = start(graph, session="t")
        graph.stage(other.run_id, token="t", memberships=[put("t00000", "k1"), put("t00001", "k2")])
        halves = tuple(cluster(name, 1, change="split", session_id="t") for name in ("k1", "k2"))
        latest = {"sampled": 2, "seconds": 0.25}
        graph.publish(replace(other, status="done", clusters=halves, considered=3, noise=2, **latest), token="t")
        assert graph.standing() == Standing(2, clusters=4, merged=1, split=2, considered=9, noise=3, **latest)
        # a run that finds nothing new publishes nothing
        idle = start(graph)
        graph.finish_run(replace(idle, status="done", seconds=9.0), token="t")
        assert graph.standing().seconds == 0.25
        graph.rollback_run(other.run_id)
        assert graph.standing() == first
        graph.tombstone(session_id="s")
        assert graph.standing() == Standing()

    def test_a_fold_counts_what_the_current_run_folded_and_spans_its_time(self, graph: GraphStore) -> None:
        assert graph.folds(["e00000"]) == {}
        publish(graph, [put("e00001", "c1", original="e00003"), put("e00003", "c1"), put("e00005", "c1")])
        times = {name: e.timestamp for name, e in graph.get(["e00001", "e00003", "e00006"]).items()}
        assert graph.folds(["e00001", "e00003", "e00005", "nowhere"]) == {
            "e00003": Fold(2, times["e00001"], times["e00003"])
        }
        second = publish(graph, [put("e00001", "c1"), put("e00006", "c1", original="e00003")])
        assert graph.folds(["e00003"]) == {"e00003": Fold(2, times["e00003"], times["e00006"])}
        graph.rollback_run(second.run_id)
        assert graph.folds(["e00003"]) == {"e00003": Fold(2, times["e00001"], times["e00003"])}
        graph.tombstone(episode_ids=["e00001"])
        assert graph.folds(["e00003"]) == {}

    def test_what_a_run_moved_is_known_with_where_it_was_before(self, graph: GraphStore) -> None:
        first = publish(graph, [put("e00000", "c1"), put("e00001", None), put("e00002", "c2")])
        assert sorted(graph.moved(first.run_id), key=lambda m: m.episode_id) == [
            Moved("e00000", "c1", None),
            Moved("e00001", "near", None),
            Moved("e00002", "c2", None),
        ]
        run = start(graph)
        graph.stage(run.run_id, token="t", memberships=[put("e00000", "c2"), put("e00002", "c2"), put("e00003", "c1")])
        assert graph.moved(run.run_id) == []
        graph.publish(replace(run, status="done"), token="t")
        moved = sorted(graph.moved(run.run_id), key=lambda m: m.episode_id)
        assert moved == [Moved("e00000", "c2", "c1"), Moved("e00003", "c1", None)]
        assert graph.moved("nowhere") == []

    def test_only_what_differs_need_be_staged(self, graph: GraphStore) -> None:
        publish(graph, [put(f"e0000{i}", "a") for i in range(4)])
        publish(graph, [put("e00001", "b"), put("e00002", "a"), put("e00004", "b")])
        assert [(m.episode_id, m.cluster_id) for m in graph.memberships("s")] == [
            ("e00000", "a"),
            ("e00001", "b"),
            ("e00002", "a"),
            ("e00003", "a"),
            ("e00004", "b"),
        ]

    def test_staging_again_replaces_what_was_staged(self, graph: GraphStore) -> None:
        publish(graph, [put("e00000", "a"), put("e00001", "a")])
        run = start(graph)
        for turn in ("x", "y", "y"):
            assert graph.stage(run.run_id, token="t", memberships=[put("e00000", turn), put("e00002", turn)])
        # back to where it is: as if never staged
        assert graph.stage(run.run_id, token="t", memberships=[put("e00001", "z")])
        assert graph.stage(run.run_id, token="t", memberships=[put("e00001", "a")])
        graph.publish(run, token="t")
        assert [(m.episode_id, m.cluster_id) for m in graph.memberships("s")] == [
            ("e00000", "y"),
            ("e00001", "a"),
            ("e00002", "y"),
        ]
        graph.rollback_run(run.run_id)
        assert [(m.episode_id, m.cluster_id) for m in graph.memberships("s")] == [("e00000", "a"), ("e00001", "a")]

    def test_memberships_are_paged_and_filtered_by_cluster(self, graph: GraphStore) -> None:
        publish(graph, [put(f"e0000{i}", "ab"[i % 2]) for i in range(7)])
        seen: list[str] = []
        after = None
        while page := graph.memberships("s", after=after, limit=3):
            seen += [m.episode_id for m in page]
            after = page[-1].episode_id
        assert sorted(seen) == ids(episodes(7))
        members = graph.memberships("s", cluster_id="b", limit=2)
        members += graph.memberships("s", cluster_id="b", after=members[-1].episode_id)
        assert sorted(m.episode_id for m in members) == ["e00001", "e00003", "e00005"]
        assert graph.memberships("s", cluster_id="nobody") == []

    def test_unconsolidated_episodes_are_paged_in_session_order(self, graph: GraphStore) -> None:
        graph.add([Episode("early", "early", "s", START.replace(year=2020))])
        embed(graph)
        publish(graph, [put("e00001", "a"), put("e00006", None)])
        first = graph.unconsolidated("s", limit=3)
        assert ids(first) == ["early", "e00000", "e00002"]
        last = first[-1]
        assert last.timestamp is not None
        rest = graph.unconsolidated("s", limit=9, after=(last.timestamp, last.position, last.episode_id))
        assert ids(rest) == ["e00003", "e00004", "e00005", "e00007"]
        assert graph.count_unconsolidated() == {"s": 7, "t": 3}
        assert graph.count_unconsolidated("t") == {"t": 3}
        assert graph.count_unconsolidated("nobody") == {}

    def test_other_sessions_and_unembedded_episodes_cannot_be_staged(self, graph: GraphStore) -> None:
        graph.add(episodes(1, start=50))
        publish(graph, [put("t00000", "a"), put("e00050", "a"), put("nobody", "a"), put("e00000", "a", 0.1, "nobody")])
        assert graph.memberships("s") == [put("e00000", "a", 0.1)]
        assert graph.memberships("t") == []

    def test_a_place_survives_new_embedding_and_its_payload_is_restored(self, graph: GraphStore) -> None:
        publish(graph, [put("e00000", "a")])
        graph.reopen(["e00000", "e00001"])
        embed(graph)
        assert [row.episode.episode_id for row in graph.dirty(Dirty.PAYLOAD, 9)] == ["e00000"]
        assert graph.count_unconsolidated("s") == {"s": 7}


class TestRollback:
    def test_what_was_before_is_exactly_restored(self, graph: GraphStore) -> None:
        states = [state(graph)]
        runs = []
        for turn in range(3):
            runs.append(
                publish(
                    graph,
                    [put(f"e0000{i}", f"c{(i + turn) % 3}", 0.1 * turn) for i in range(turn, turn + 4)],
                    [cluster(f"c{i}", i, keyphrases=(f"phrase {turn}",)) for i in range(turn + 1)],
                )
            )
            states.append(state(graph))
        for turn in (2, 1, 0):
            clear(graph)
            assert state(graph) == states[turn + 1]
            rolled = graph.rollback_run(runs[turn].run_id)
            assert rolled.status == "rolled_back"
            assert state(graph) == states[turn]
            # the vector store is told of all it changed
            assert len(graph.dirty(Dirty.PAYLOAD, 99)) == 4
        assert graph.run(runs[2].run_id).clusters == ()

    def test_life_goes_on_after_a_rollback(self, graph: GraphStore) -> None:
        publish(graph, [put("e00000", "a"), put("e00001", "a")])
        kept = state(graph)
        second = publish(graph, [put("e00001", "b"), put("e00002", "b")])
        graph.rollback_run(second.run_id)
        third = publish(graph, [put("e00002", "c")])
        assert [(m.episode_id, m.cluster_id) for m in graph.memberships("s")] == [
            ("e00000", "a"),
            ("e00001", "a"),
            ("e00002", "c"),
        ]
        with pytest.raises(InvalidInput, match="not the visible run"):
            graph.rollback_run(second.run_id)
        graph.rollback_run(third.run_id)
        assert state(graph) == kept

    def test_a_rollback_waits_for_no_live_run(self, graph: GraphStore, clock: Clock) -> None:
        first = publish(graph, [put("e00000", "a")])
        before = state(graph)
        running = start(graph, "r")
        graph.stage(running.run_id, token="r", memberships=[put("e00000", "b")])
        with pytest.raises(Busy, match=running.run_id):
            graph.rollback_run(first.run_id)
        assert state(graph) == before
        clock.advance(LEASE)
        graph.rollback_run(first.run_id)
        assert not graph.publish(running, token="r")
        assert state(graph) == ([], ids(episodes(8)), None, None)

    def test_what_was_erased_or_rewritten_stays_out(self, graph: GraphStore) -> None:
        publish(graph, [put(f"e0000{i}", "a", 0.1, "e00001" if i == 3 else None) for i in range(6)], [cluster("a", 6)])
        second = publish(graph, [put(f"e0000{i}", "b") for i in range(6)], [cluster("b", 6)])
        graph.tombstone(episode_ids=["e00001"])
        graph.update("e00002", content="new")

        graph.rollback_run(second.run_id)

        assert [m.episode_id for m in graph.memberships("s")] == ["e00000", "e00003", "e00004", "e00005"]
        assert {m.duplicate_of for m in graph.memberships("s")} == {None}
        current = graph.current_run("s")
        assert current is not None
        assert [c.size for c in current.clusters] == [4]
        embed(graph)
        assert ids(graph.unconsolidated("s", limit=9)) == ["e00002", "e00006", "e00007"]

    def test_only_the_runs_that_are_kept_can_be_reached(self, graph: GraphStore) -> None:
        runs = [publish(graph, [put("e00000", f"c{i}")], [cluster(f"c{i}")]) for i in range(5)]
        names = [run.run_id for run in runs]
        attempts = [run.attempt for run in runs]
        assert graph.prune_runs("s", 9) == attempts[::-1]
        assert graph.prune_runs("s", 2) == [attempts[4], attempts[3]]
        assert graph.prune_runs("s", 9) == [attempts[4], attempts[3]]
        assert graph.run(names[2]).clusters == ()
        assert graph.rollback_run(names[4]).status == "rolled_back"
        assert graph.get(["e00000"])["e00000"].cluster_id == "c3"
        with pytest.raises(InvalidInput, match="no longer kept"):
            graph.rollback_run(names[3])
        assert graph.get(["e00000"])["e00000"].cluster_id == "c3"
        with pytest.raises(InvalidInput):
            graph.prune_runs("s", 0)

    def test_the_first_run_can_always_be_taken_back(self, graph: GraphStore) -> None:
        before = state(graph)
        run = publish(graph, [put("e00000", "a")])
        graph.prune_runs("s", 1)
        graph.rollback_run(run.run_id)
        assert state(graph) == before


class TestPayloadOfARunUnderWay:
    """A run writes the payload of what it stages beforehand: a refresh from the old state must not win."""

    def test_a_refresh_leaves_staged_episodes_to_the_run(self, graph: GraphStore) -> None:
        graph.update("e00000", importance=0.9)
        graph.update("e00001", importance=0.9)
        seen = {row.episode.episode_id: row.version for row in graph.dirty(Dirty.PAYLOAD, 9)}
        run = start(graph)
        graph.stage(run.run_id, token="t", memberships=[put("e00000", "a")])

        graph.clear_dirty(Dirty.PAYLOAD, seen)
        assert graph.dirty(Dirty.PAYLOAD, 9) == []

        graph.publish(run, token="t")
        assert [(r.episode.episode_id, r.episode.cluster_id) for r in graph.dirty(Dirty.PAYLOAD, 9)] == [
            ("e00000", "a")
        ]

    def test_an_abandoned_run_leaves_its_payload_to_be_restored(self, graph: GraphStore) -> None:
        run = start(graph)
        graph.stage(run.run_id, token="t", memberships=[put("e00000", "a"), put("e00001", None)])
        graph.finish_run(replace(run, status="failed"), token="t")
        assert ids([row.episode for row in graph.dirty(Dirty.PAYLOAD, 9)]) == ["e00000", "e00001"]


@pytest.mark.parametrize("seed", range(3))
def test_any_history_matches_a_plain_model(graph: GraphStore, clock: Clock, seed: int) -> None:
    """Runs, abandoned runs, rollbacks, erasure, new content and pruning in any order, against dictionaries."""
    rng = random.Random(seed)
    alive = set(ids(episodes(8)))
    history: list[tuple[str, dict[str, Membership]]] = [("", {})]
    kept = 1
    for turn in range(40):
        current = dict(history[-1][1])
        token = f"t{turn}"
        match rng.choice(["publish", "publish", "publish", "abandon", "fail", "rollback", "erase", "rewrite", "prune"]):
            case "publish":
                staged = _some(rng, alive, turn)
                run = publish(graph, staged, token=token)
                current.update({m.episode_id: m for m in staged})
                history.append((run.attempt, current))
                kept += 1
            case "abandon":
                run = start(graph, token)
                graph.stage(run.run_id, token=token, memberships=_some(rng, alive, turn))
                clock.advance(LEASE)
            case "fail":
                run = start(graph, token)
                graph.stage(run.run_id, token=token, memberships=_some(rng, alive, turn))
                graph.finish_run(replace(run, status="failed"), token=token)
            case "rollback" if kept > 1:
                graph.rollback_run(of_attempt(history.pop()[0])[0])
                kept -= 1
            case "prune" if len(history) > 3:
                kept = min(kept, 2)
                assert graph.prune_runs("s", 2) == [history[-1][0], history[-2][0]][: max(kept, 1)]
                kept = 2
            case "erase" if len(alive) > 4:
                name = rng.choice(sorted(alive))
                graph.tombstone(episode_ids=[name])
                alive.discard(name)
                for _, members in history:
                    members.pop(name, None)
            case "rewrite":
                name = rng.choice(sorted(alive))
                graph.update(name, content=f"new {turn}")
                embed(graph)
                for _, members in history:
                    members.pop(name, None)
        expected = history[-1][1]
        assert {m.episode_id: m for m in graph.memberships("s")} == expected
        assert set(ids(graph.unconsolidated("s", limit=99))) == alive - set(expected)
        assert graph.current_attempts().get("s", "") == history[-1][0]
        assert graph.counts().balanced


def _some(rng: random.Random, names: set[str], turn: int) -> list[Membership]:
    chosen = rng.sample(sorted(names), rng.randint(0, len(names)))
    return [put(name, rng.choice(["a", "b", None]), rng.choice([0.25, turn / 64])) for name in chosen]
