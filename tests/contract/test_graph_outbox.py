"""The outbox: leases, fencing, failures, and what is lost with a worker."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.graphs import Clock, claimed, clear, embed, episodes, ids
from ww_core.models import State
from ww_core.stores.ports import Dirty, GraphStore

LEASE = 60.0


def test_the_oldest_are_claimed_first_and_only_once(graph: GraphStore) -> None:
    # stored later, though it happened earlier
    graph.add(episodes(3, start=10))
    graph.add(episodes(2))

    assert claimed(graph.claim(4, token="a", lease_seconds=LEASE)) == ["e00010", "e00011", "e00012", "e00000"]
    assert claimed(graph.claim(4, token="b", lease_seconds=LEASE)) == ["e00001"]
    assert graph.claim(4, token="c", lease_seconds=LEASE) == []
    assert not graph.has_work()


def test_a_claim_carries_the_episode_as_it_is(graph: GraphStore) -> None:
    graph.add([replace(episodes(1)[0], context={"a": "b"}, outcome="success")])

    (claim,) = graph.claim(1, token="a", lease_seconds=LEASE)

    assert claim.episode == graph.get(["e00000"])["e00000"]
    assert claim.episode.state is State.LEASED
    assert (claim.token, claim.generation, claim.deliveries, claim.alone) == ("a", 1, 1, False)
    assert claim.episode.generation == claim.generation


def test_each_claim_raises_generation_and_deliveries(graph: GraphStore) -> None:
    graph.add(episodes(1))
    for turn in (1, 2, 3):
        (claim,) = graph.claim(1, token=f"t{turn}", lease_seconds=LEASE)
        assert (claim.generation, claim.deliveries) == (turn, turn)
        assert graph.release(f"t{turn}", ["e00000"]) == 1
    (claim,) = graph.claim(1, token="t4", lease_seconds=LEASE)
    graph.mark_embedded("t4", {"e00000": 1})
    graph.reopen(["e00000"])
    (claim,) = graph.claim(1, token="t5", lease_seconds=LEASE)
    assert (claim.generation, claim.deliveries) == (5, 1)


def test_only_the_holder_of_the_lease_can_act(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(4))
    graph.claim(4, token="slow", lease_seconds=LEASE)
    clock.advance(LEASE)
    assert graph.expire_leases(max_attempts=3) == 4
    again = claimed(graph.claim(4, token="quick", lease_seconds=LEASE))

    assert graph.mark_embedded("slow", dict.fromkeys(again, 1)) == set()
    assert graph.release("slow", again) == 0
    assert graph.extend("slow", lease_seconds=LEASE) == 0
    assert graph.fail("slow", again[0], error="x", traceback="", max_attempts=1, delay_seconds=0) is None
    assert graph.mark_embedded("quick", {again[0]: 3, "nobody": 1}) == {again[0]}
    assert graph.mark_embedded("quick", {again[0]: 3}) == set()
    assert graph.get(again)[again[0]].windows == 3


def test_an_expired_lease_holds_until_it_is_swept(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(2))
    graph.claim(2, token="slow", lease_seconds=LEASE)
    clock.advance(LEASE * 2)
    assert graph.mark_embedded("slow", {"e00000": 1}) == {"e00000"}
    assert graph.expire_leases(max_attempts=3) == 1
    assert graph.mark_embedded("slow", {"e00001": 1}) == set()


def test_an_extended_lease_does_not_expire(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(5))
    graph.claim(2, token="a", lease_seconds=LEASE)
    graph.claim(2, token="a", lease_seconds=LEASE)
    clock.advance(LEASE - 1)

    assert graph.extend("a", lease_seconds=LEASE) == 4
    clock.advance(LEASE - 1)
    assert graph.expire_leases(max_attempts=3) == 0
    clock.advance(1)
    assert graph.expire_leases(max_attempts=3) == 4
    assert graph.extend("a", lease_seconds=LEASE) == 0


def test_released_rows_wait_for_their_delay(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(3))
    graph.claim(3, token="a", lease_seconds=LEASE)
    assert graph.release("a", ["e00000", "e00001"], delay_seconds=30) == 2
    assert graph.release("a", ["e00002"]) == 1

    assert claimed(graph.claim(9, token="b", lease_seconds=LEASE)) == ["e00002"]
    assert not graph.has_work()
    clock.advance(29.9)
    assert graph.claim(9, token="b", lease_seconds=LEASE) == []
    clock.advance(0.1)
    assert graph.has_work()
    assert claimed(graph.claim(9, token="b", lease_seconds=LEASE)) == ["e00000", "e00001"]


@pytest.mark.parametrize("number", [1, 2, 5, 8, 64])
def test_lost_rows_come_back_in_halves_and_finally_alone(graph: GraphStore, clock: Clock, number: int) -> None:
    """A worker dies of one row out of ``number``: that row is found, and nothing else dies with it."""
    graph.add(episodes(number))
    poison = f"e{number // 2:05d}"
    turns = 0
    sizes: list[int] = []
    while graph.counts().pending or graph.counts().leased:
        turns += 1
        assert turns < 200
        token = f"t{turns}"
        claims = graph.claim(512, token=token, lease_seconds=LEASE)
        if poison in claimed(claims):
            sizes.append(len(claims))
            assert claims[0].alone == (len(claims) == 1 and len(sizes) > 1)
            clock.advance(LEASE)
            graph.expire_leases(max_attempts=3)
        else:
            graph.mark_embedded(token, dict.fromkeys(claimed(claims), 1))

    assert sizes[0] == number
    assert all(after <= (before + 1) // 2 for before, after in itertools.pairwise(sizes))
    assert sizes.count(1) == (4 if number == 1 else 3)
    (letter,) = graph.dead_letters()
    assert (letter.episode_id, letter.attempts) == (poison, 3)
    assert letter.error.startswith("WorkerLost: ")
    counts = graph.counts()
    assert (counts.embedded, counts.dead, counts.balanced) == (number - 1, 1, True)


def test_parts_of_a_lost_lease_are_never_mixed_with_others(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(4))
    graph.claim(4, token="a", lease_seconds=LEASE)
    graph.add(episodes(4, start=4))
    clock.advance(LEASE)
    graph.expire_leases(max_attempts=3)

    parts = [claimed(graph.claim(512, token=f"p{i}", lease_seconds=LEASE)) for i in range(3)]

    assert sorted(map(tuple, parts)) == [
        ("e00000", "e00001"),
        ("e00002", "e00003"),
        ("e00004", "e00005", "e00006", "e00007"),
    ]


def test_what_was_handed_back_is_not_lost(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(4))
    graph.claim(4, token="a", lease_seconds=LEASE)
    graph.release("a", ids(episodes(4)))
    clock.advance(LEASE)
    assert graph.expire_leases(max_attempts=3) == 0
    assert len(graph.claim(4, token="b", lease_seconds=LEASE)) == 4


def test_an_outage_of_any_length_kills_nothing(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(3))
    for turn in range(20):
        token = f"t{turn}"
        rows = claimed(graph.claim(512, token=token, lease_seconds=LEASE))
        assert len(rows) == 3
        graph.release(token, rows, delay_seconds=5)
        clock.advance(5)
    assert graph.counts().pending == 3


def test_failures_of_a_text_end_in_a_dead_letter(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(2))
    states = []
    for turn in range(3):
        token = f"t{turn}"
        assert "e00000" in claimed(graph.claim(9, token=token, lease_seconds=LEASE))
        states.append(
            graph.fail(token, "e00000", error=f"ValueError: {turn}", traceback="tail", max_attempts=3, delay_seconds=5)
        )
        graph.release(token, ["e00001"])
        clock.advance(5)

    assert states == [State.PENDING, State.PENDING, State.DEAD]
    (letter,) = graph.dead_letters()
    assert (letter.episode_id, letter.session_id, letter.attempts) == ("e00000", "s", 3)
    assert (letter.error, letter.traceback) == ("ValueError: 2", "tail")
    assert letter.last_failed_at == clock.now - timedelta(seconds=5)
    assert graph.get(["e00000"])["e00000"].state is State.DEAD
    assert claimed(graph.claim(9, token="z", lease_seconds=LEASE)) == ["e00001"]


def test_dead_letters_are_paged_replayed_and_purged(graph: GraphStore) -> None:
    graph.add(episodes(5))
    graph.claim(5, token="t", lease_seconds=LEASE)
    for name in ids(episodes(5)):
        graph.fail("t", name, error="E: x", traceback="", max_attempts=1, delay_seconds=0)

    assert [d.episode_id for d in graph.dead_letters(limit=2)] == ["e00000", "e00001"]
    assert [d.episode_id for d in graph.dead_letters(limit=9, after="e00001")] == ["e00002", "e00003", "e00004"]
    assert graph.replay(["e00001", "nobody", "e00001"]) == 1
    graph.tombstone(episode_ids=["e00002"])
    assert [d.episode_id for d in graph.dead_letters()] == ["e00000", "e00003", "e00004"]
    assert graph.replay() == 3
    assert graph.replay() == 0
    assert graph.dead_letters() == []
    claims = graph.claim(9, token="u", lease_seconds=LEASE)
    assert {(c.deliveries, c.alone) for c in claims} == {(1, False)}
    # attempts are fresh, too
    assert graph.fail("u", "e00001", error="E", traceback="", max_attempts=2, delay_seconds=0) is State.PENDING
    assert graph.counts().balanced


def test_reopening_takes_embedded_rows_only(graph: GraphStore) -> None:
    graph.add(episodes(3))
    embed(graph, 1)
    assert graph.reopen(["e00000", "e00001", "nobody", "e00000"]) == 1
    assert graph.counts().pending == 3
    assert graph.count_unconsolidated() == {}
    embed(graph)
    assert graph.count_unconsolidated() == {"s": 3}


def test_a_mark_is_settled_when_nothing_before_it_is_open(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(4))
    mark = graph.stored_mark()
    graph.add(episodes(4, start=4))
    assert graph.stored_mark() > mark

    rows = claimed(graph.claim(4, token="a", lease_seconds=LEASE))
    assert not graph.settled(mark)
    graph.mark_embedded("a", dict.fromkeys(rows[:2], 1))
    graph.fail("a", rows[2], error="E", traceback="", max_attempts=1, delay_seconds=0)
    graph.release("a", rows[3:], delay_seconds=9)
    assert not graph.settled(mark)
    clock.advance(9)
    graph.claim(1, token="b", lease_seconds=LEASE)
    assert not graph.settled(mark)
    graph.tombstone(episode_ids=rows[3:])
    assert graph.settled(mark)
    assert not graph.settled(graph.stored_mark())
    # new content is work again
    graph.update(rows[0], content="new")
    assert not graph.settled(mark)


def test_the_oldest_open_row_has_an_age(graph: GraphStore, clock: Clock) -> None:
    graph.add(episodes(1))
    clock.advance(10)
    graph.add(episodes(1, start=1))
    assert graph.oldest_pending() == 10
    graph.claim(1, token="a", lease_seconds=LEASE)
    clock.advance(1)
    assert graph.oldest_pending() == 11
    graph.mark_embedded("a", {"e00000": 1})
    assert graph.oldest_pending() == 1
    # opened again just now: it stands in front of the older one but is younger
    graph.reopen(["e00000"])
    assert graph.oldest_pending() == 1
    embed(graph)
    assert graph.oldest_pending() is None


class TestDirt:
    def test_embedding_marks_the_context_of_both_neighbours_each_side(self, graph: GraphStore) -> None:
        graph.add([*episodes(9), *episodes(3, session="t", prefix="t")])
        rows = [c for c in claimed(graph.claim(99, token="a", lease_seconds=LEASE)) if c != "e00004"]
        graph.mark_embedded("a", dict.fromkeys(rows, 1))
        clear(graph, Dirty.CONTEXT)

        graph.mark_embedded("a", {"e00004": 1})

        dirty = {row.episode.episode_id for row in graph.dirty(Dirty.CONTEXT, 99)}
        assert dirty == {"e00002", "e00003", "e00004", "e00005", "e00006"}
        assert graph.dirty(Dirty.PAYLOAD, 99) == []

    def test_only_embedded_rows_are_reported(self, graph: GraphStore) -> None:
        graph.add(episodes(3))
        rows = claimed(graph.claim(3, token="a", lease_seconds=LEASE))
        graph.mark_embedded("a", {rows[0]: 1})
        assert [row.episode.episode_id for row in graph.dirty(Dirty.CONTEXT, 9)] == [rows[0]]
        graph.reopen([rows[0]])
        assert graph.dirty(Dirty.CONTEXT, 9) == []

    def test_a_change_during_a_refresh_is_not_lost(self, graph: GraphStore) -> None:
        graph.add(episodes(2))
        embed(graph)
        seen = {row.episode.episode_id: row.version for row in graph.dirty(Dirty.CONTEXT, 9)}
        graph.clear_dirty(Dirty.CONTEXT, {"e00000": seen["e00000"]})
        graph.reopen(["e00001"])
        embed(graph)

        graph.clear_dirty(Dirty.CONTEXT, seen)

        assert {row.episode.episode_id for row in graph.dirty(Dirty.CONTEXT, 9)} == {"e00000", "e00001"}
        clear(graph, Dirty.CONTEXT)
        assert graph.dirty(Dirty.CONTEXT, 9) == []

    def test_the_limit_and_the_order_hold(self, graph: GraphStore) -> None:
        graph.add(episodes(9))
        embed(graph)
        first = graph.dirty(Dirty.CONTEXT, 4)
        assert len(first) == 4
        graph.clear_dirty(Dirty.CONTEXT, {row.episode.episode_id: row.version for row in first})
        rest = graph.dirty(Dirty.CONTEXT, 99)
        assert {r.episode.episode_id for r in first + rest} == set(ids(episodes(9)))
        assert len(rest) == 5

    def test_erasing_marks_the_context_of_the_neighbours(self, graph: GraphStore) -> None:
        graph.add(episodes(6))
        embed(graph)
        clear(graph, Dirty.CONTEXT)
        graph.tombstone(episode_ids=["e00002", "e00003"])
        assert ids([r.episode for r in graph.dirty(Dirty.CONTEXT, 9)]) == ["e00000", "e00001", "e00004", "e00005"]
