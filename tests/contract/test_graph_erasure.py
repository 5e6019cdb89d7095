"""Erasure: nothing of an episode is left but its tombstone, and nothing brings it back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from tests.contract.graphs import embed, episodes, ids
from ww_core.errors import NotFound
from ww_core.models import Cluster, Medoid
from ww_core.stores.ports import Added, Dirty, GraphStore, Membership, Where


def test_an_erased_episode_is_gone_for_good(graph: GraphStore) -> None:
    graph.add(episodes(4))
    embed(graph, 2)

    assert graph.tombstone(episode_ids=["e00000", "e00002", "nobody", "e00000"]) == (["e00000", "e00002"], 0)

    assert set(graph.get(ids(episodes(4)))) == {"e00001", "e00003"}
    assert ids(graph.page(Where(archived=None))) == ["e00001", "e00003"]
    assert ids(graph.page(Where(episode_ids=("e00000", "e00001")))) == ["e00001"]
    assert [r.outcome for r in graph.add(episodes(1))] == [Added.ERASED]
    assert graph.tombstone(episode_ids=["e00000"]) == ([], 0)
    assert ids([c.episode for c in graph.claim(9, token="t", lease_seconds=9)]) == ["e00001", "e00003"][1:]
    counts = graph.counts("s")
    assert (counts.acknowledged, counts.embedded, counts.erased, counts.leased) == (4, 1, 2, 1)
    assert counts == graph.counts()
    assert graph.count_unconsolidated() == {"s": 1}
    assert {row.episode.episode_id for row in graph.dirty(Dirty.CONTEXT, 9)} == {"e00001"}


def test_the_lease_of_an_erased_row_is_void(graph: GraphStore) -> None:
    graph.add(episodes(2))
    graph.claim(2, token="t", lease_seconds=9)
    graph.tombstone(episode_ids=["e00000"])
    assert graph.mark_embedded("t", {"e00000": 1, "e00001": 1}) == {"e00001"}
    assert graph.release("t", ["e00000"]) == 0
    assert graph.reopen(["e00000"]) == 0
    assert graph.counts().balanced


def test_tombstones_wait_until_their_vectors_are_gone(graph: GraphStore) -> None:
    graph.add(episodes(5))
    graph.tombstone(episode_ids=["e00000", "e00001", "e00002"])
    assert graph.unfinished_tombstones(2) == ["e00000", "e00001"]
    graph.finish_tombstones(["e00000", "e00001", "nobody"])
    assert graph.unfinished_tombstones(9) == ["e00002"]


def test_a_session_is_erased_whole(graph: GraphStore) -> None:
    graph.add([*episodes(30), *episodes(2, session="t", prefix="t")])
    embed(graph, 20)
    graph.claim(5, token="t", lease_seconds=9)

    erased, memberships = graph.tombstone(session_id="s")

    assert (sorted(erased), memberships) == (ids(episodes(30)), 0)
    assert [s.session_id for s in graph.sessions()] == ["t"]
    assert graph.counts("s").erased == graph.counts("s").acknowledged == 30
    assert graph.tombstone(session_id="s") == ([], 0)
    assert graph.tombstone(session_id="nobody") == ([], 0)
    # the session itself may live again
    assert [r.outcome for r in graph.add(episodes(1, start=99))] == [Added.CREATED]


def test_the_name_of_an_erased_session_goes_once_its_vectors_have_gone(graph: GraphStore) -> None:
    graph.add([*episodes(1200), *episodes(2, session="t", prefix="t")])
    graph.tombstone(session_id="s")
    assert graph.unfinished_sessions(9) == ["s"]
    before = graph.counts()

    graph.finish_session("s")

    assert graph.unfinished_sessions(9) == []
    assert graph.counts() == before, "the account of the whole does not change"
    assert (before.acknowledged, before.erased) == (1202, 1200)
    assert graph.counts("s").acknowledged == 0, "nobody can tell any more that there was such a session"
    assert graph.counts("t").acknowledged == 2
    assert graph.add(episodes(1))[0].outcome is Added.ERASED
    assert graph.unfinished_tombstones(1) == ["e00000"], "and what is still to be done for its episodes is known"
    mark = graph.stored_mark()
    # the name starts anew, as any name nobody used before
    assert graph.add(episodes(3, start=5000))[0].outcome is Added.CREATED
    assert graph.stored_mark() > mark
    assert graph.counts("s").acknowledged == graph.counts("s").pending == 3
    assert graph.counts().balanced
    graph.tombstone(session_id="s")
    graph.finish_session("s")
    graph.finish_session("nobody")
    assert graph.counts().erased == 1203
    assert graph.counts().balanced


def test_a_session_that_lives_again_keeps_its_name(graph: GraphStore) -> None:
    graph.add(episodes(3))
    graph.tombstone(session_id="s")
    graph.add(episodes(2, start=10))
    graph.finish_session("s")
    assert graph.unfinished_sessions(9) == []
    assert ids(graph.page(Where(sessions=("s",)))) == ["e00010", "e00011"]
    assert (graph.counts("s").acknowledged, graph.counts("s").erased) == (5, 3)
    assert graph.counts("s").balanced


def test_runs_go_with_their_session(graph: GraphStore) -> None:
    graph.add([*episodes(2), *episodes(1, session="other", prefix="o")])
    embed(graph)
    done = graph.start_run(graph.request_run("s").run_id, token="a", lease_seconds=9)
    graph.stage(done.run_id, token="a", memberships=[Membership(name, "c", "c", 0.1) for name in ids(episodes(2))])
    graph.publish(replace(done, status="done", clusters=(Cluster("c", "s", "label", 2),)), token="a")
    under_way = graph.start_run(graph.request_run("s").run_id, token="b", lease_seconds=9)
    graph.request_run("s", window="w")
    other = graph.request_run("other")

    graph.tombstone(session_id="s")

    assert [r.run_id for r in graph.runs()] == [other.run_id]
    assert [r.run_id for r in graph.requested_runs(9)] == [other.run_id]
    assert graph.current_attempts() == {}
    assert graph.current_run("s") is None
    assert not graph.extend_run(under_way.run_id, token="b", lease_seconds=9, progress=0.5)
    assert not graph.stage(under_way.run_id, token="b", memberships=[Membership("e00000", "c", "c", 0.1)])
    assert not graph.publish(replace(under_way, clusters=(Cluster("c", "s", "label", 2),)), token="b")
    with pytest.raises(NotFound):
        graph.run(done.run_id)


def test_storing_while_the_session_is_erased_loses_nothing(graph: GraphStore) -> None:
    rounds = range(12)

    def store(start: int) -> None:
        for number in rounds:
            batch = episodes(3, start=1000 * start + 10 * number)
            assert {r.outcome for r in graph.add(batch)} == {Added.CREATED}

    with ThreadPoolExecutor(4) as pool:
        storing = [pool.submit(store, start) for start in range(3)]
        erased = 0
        while not all(done.done() for done in storing):
            erased += len(graph.tombstone(session_id="s")[0])
            graph.finish_session("s")
        for done in storing:
            done.result()
    counts = graph.counts()
    assert counts.balanced
    assert (counts.acknowledged, counts.erased) == (3 * 3 * len(rounds), erased)
    assert len(graph.page(Where(sessions=("s",)))) == counts.pending, "and every row that lives has its session"


def test_labels_lose_the_words_that_only_the_erased_episode_said(graph: GraphStore) -> None:
    texts = ["deploy of zanzibar failed", "deploy failed again", "deploy of api failed"]
    graph.add([replace(e, content=text) for e, text in zip(episodes(3), texts, strict=True)])
    embed(graph)
    clusters = (
        Cluster("c", "s", "zanzibar deploy", 3, ("zanzibar deploy", "deploy failed", "Zanzibar"), Medoid("e00000", "")),
        Cluster("d", "s", "zanzibar", 1, ("zanzibar",)),
    )
    for token in ("a", "b"):
        run = graph.start_run(graph.request_run("s").run_id, token=token, lease_seconds=9)
        members = [Membership(name, "c", "c", 0.1 if token == "a" else 0.2) for name in ids(episodes(3))]
        graph.stage(run.run_id, token=token, memberships=members)
        graph.publish(replace(run, status="done", clusters=clusters), token=token)

    assert graph.tombstone(episode_ids=["e00000"]) == (["e00000"], 1)

    for turn in range(2):
        current = graph.current_run("s")
        assert current is not None
        named, other = current.clusters
        assert (named.label, named.keyphrases, named.medoid, named.size) == (
            "deploy failed",
            ("deploy failed",),
            None,
            2,
        )
        # it was never a member there: the word comes from somebody else
        assert other.label == "zanzibar"
        if turn == 0:
            graph.rollback_run(run.run_id)
    assert len(graph.memberships("s")) == 2


def test_a_run_that_read_the_text_before_it_was_erased_publishes_nothing_of_it(graph: GraphStore) -> None:
    graph.add([*episodes(2), *episodes(1, session="other", prefix="o")])
    embed(graph)
    run = graph.start_run(graph.request_run("s").run_id, token="a", lease_seconds=9)
    other = graph.start_run(graph.request_run("other").run_id, token="b", lease_seconds=9)
    graph.stage(run.run_id, token="a", memberships=[Membership("e00000", "c", "c", 0.1)])

    graph.tombstone(episode_ids=["e00000"])

    named = replace(run, status="done", clusters=(Cluster("c", "s", "zanzibar", 1, ("zanzibar",)),))
    assert not graph.publish(named, token="a")
    assert graph.current_run("s") is None
    assert [r.run_id for r in graph.requested_runs(9)] == [run.run_id], "it is done again, without the episode"
    assert graph.publish(replace(other, status="done"), token="b"), "another session's run goes on"


def test_a_cluster_of_erased_episodes_goes(graph: GraphStore) -> None:
    graph.add(episodes(3))
    embed(graph)
    run = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds=9)
    members = [Membership(name, "c", "c", 0.1) for name in ids(episodes(2))]
    graph.stage(run.run_id, token="t", memberships=members)
    clusters = (Cluster("c", "s", "label", 2), Cluster("old", "s", "old", 0, change="gone"))
    graph.publish(replace(run, clusters=clusters), token="t")

    assert graph.tombstone(episode_ids=["e00000", "e00001"])[1] == 2

    current = graph.current_run("s")
    assert current is not None
    assert [c.cluster_id for c in current.clusters] == ["old"]
