"""Episodes: written once, read back as they were, in order, by any filter."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.contract.graphs import START, Clock, clear, embed, episodes, ids
from ww_core.errors import NotFound
from ww_core.models import Episode, State
from ww_core.stores import pages
from ww_core.stores.ports import Added, Dirty, GraphStore, Place, Where, place_of


def test_an_episode_comes_back_as_it_was(graph: GraphStore, clock: Clock) -> None:
    episode = Episode(
        content="line one\n\ttwo \x1b[31mred\x1b[0m \u202e \U0001f9e0 'quoted' \"%s\" $x {y}",
        episode_id="id/ü'\"\n1",
        session_id="sitzung \U0001f30d\n'; DROP TABLE x --",
        timestamp=START + timedelta(microseconds=7),
        context={"tool": "kubectl", "n": 1.5, "ok": True, "deep": {"list": [1, "ü", None]}, "": "empty key"},
        outcome="failure",
        importance=0.8,
        position=3,
    )

    assert graph.add([episode])[0].outcome is Added.CREATED

    assert graph.get([episode.episode_id]) == {
        episode.episode_id: replace(episode, state=State.PENDING, stored_at=clock.now)
    }


def test_timestamps_before_1970_and_far_ahead_are_exact(graph: GraphStore) -> None:
    early, late = START.replace(year=1901, microsecond=1), START.replace(year=2999, microsecond=999_999)
    graph.add([Episode("a", "a", timestamp=early), Episode("b", "b", timestamp=late)])

    found = graph.get(["a", "b"])

    assert found["a"].timestamp == early
    assert found["b"].timestamp == late


def test_each_item_of_a_batch_gets_its_own_answer(graph: GraphStore) -> None:
    first, second, third = episodes(3)
    graph.add([first, second])
    embed(graph, 1)
    graph.tombstone(episode_ids=[second.episode_id])

    results = graph.add(
        [
            first,
            replace(first, content="other"),
            replace(first, session_id="other"),
            second,
            third,
            third,
            replace(third, content="other"),
            replace(first, importance=0.1, outcome="success", context={"other": "1"}),
        ]
    )

    assert [r.outcome for r in results] == [
        Added.DUPLICATE,
        Added.CONFLICT,
        Added.CONFLICT,
        Added.ERASED,
        Added.CREATED,
        Added.DUPLICATE,
        Added.CONFLICT,
        Added.DUPLICATE,
    ]
    assert [r.state for r in results][:5] == [*[State.EMBEDDED] * 3, State.ERASED, State.PENDING]
    assert graph.get([first.episode_id])[first.episode_id].importance == first.importance
    assert graph.counts().acknowledged == 3


def test_what_an_update_replaced_is_known_again_until_it_is_erased(graph: GraphStore) -> None:
    first, second = episodes(2)
    graph.add([first, second])
    for content in ("changed", "changed again"):
        graph.update(first.episode_id, content=content)
    graph.update(second.episode_id, importance=0.9)

    def added(*items: Episode) -> list[Added]:
        return [r.outcome for r in graph.add(items)]

    assert added(first, replace(first, content="changed again"), second) == [
        Added.CORRECTED,
        Added.DUPLICATE,
        Added.DUPLICATE,
    ]
    assert added(replace(first, session_id="other"), replace(first, content="changed")) == [Added.CONFLICT] * 2
    assert graph.get([first.episode_id])[first.episode_id].content == "changed again"
    graph.update(first.episode_id, content=first.content)
    assert added(first, replace(first, content="changed again")) == [Added.DUPLICATE, Added.CONFLICT]
    graph.tombstone(episode_ids=[first.episode_id])
    assert added(first) == [Added.ERASED]


def test_nothing_asked_is_nothing_answered(graph: GraphStore) -> None:
    assert graph.add([]) == []
    assert graph.get([]) == {}
    assert graph.get(["nobody", "\ud800"]) == {}
    assert graph.page(Where()) == []
    assert graph.page(Where(sessions=("nobody",))) == []
    assert graph.neighbours("nobody", before=1, after=1) == []
    assert graph.sessions() == []
    assert graph.oldest_pending() is None
    assert graph.counts("nobody").acknowledged == 0


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    "sessions", [(), ("a",), ("a", "b"), ("b", "a", "nobody"), (*tuple(f"x{i}" for i in range(40)), "a")]
)
def test_pages_are_complete_and_in_order(graph: GraphStore, sessions: tuple[str, ...], newest_first: bool) -> None:
    # many share a timestamp, and some a timestamp and a position: the id decides
    stored = [
        Episode(f"t{i}", f"id{(i * 7) % 60:02d}", name, START + timedelta(seconds=i // 10), position=i % 3)
        for i, name in enumerate("abc" * 20)
    ]
    graph.add(stored)
    wanted = [e for e in stored if not sessions or e.session_id in sessions]
    wanted.sort(key=place_of, reverse=newest_first)

    found: list[Episode] = []
    after: Place | None = None
    while page := graph.page(Where(sessions=sessions), after=after, limit=7, newest_first=newest_first):
        assert len(page) <= 7
        found += page
        after = place_of(page[-1])

    assert ids(found) == ids(wanted)


def test_a_walk_hands_out_no_empty_page_and_goes_on_from_where_it_stopped(graph: GraphStore) -> None:
    graph.add(episodes(14))

    def sizes(most: float = math.inf) -> list[int]:
        return [len(page) for page in pages.episodes(graph, Where(), size=7, most=most)]

    assert [sizes(), sizes(14), sizes(10), sizes(3), sizes(0)] == [[7, 7], [7, 7], [7, 3], [3], []]
    latest = next(pages.episodes(graph, Where(), size=7, newest_first=True))
    assert ids(latest) == ids(episodes(14))[:6:-1]
    place = pages.to_place(pages.to_text(place_of(latest[-1])))
    assert ids(graph.page(Where(), after=place)) == ids(episodes(14))[8:]
    assert pages.to_place(pages.to_text(None)) is None


def test_filters_are_joined_by_and(graph: GraphStore) -> None:
    outcomes = ("success", "failure", "partial", None)
    stored = [
        replace(
            e, outcome=outcomes[i % 4], context={"tool": f"t{i % 3}", "n": i % 2, "ok": i % 2 == 0, "deep": {"n": 1}}
        )
        for i, e in enumerate(episodes(24))
    ]
    stored[23] = replace(stored[23], context={'quoted "ü"\n': "a\\b\t'", "deep": {"inner": "x"}, "n": 1.5})
    graph.add(stored)
    embed(graph, 5)

    def found(**parts: object) -> list[int]:
        return [e.position for e in graph.page(Where(**parts))]  # type: ignore[arg-type]

    minute = timedelta(minutes=1)
    assert found(since=START + 5 * minute, until=START + 8 * minute) == [5, 6, 7]
    assert found(outcomes=("success", "partial")) == list(range(0, 24, 2))
    assert found(context={"tool": "t1"}) == list(range(1, 24, 3))
    assert found(context={"tool": "t1", "n": "1"}) == [1, 7, 13, 19]
    assert found(context={"ok": "true"}) == list(range(0, 24, 2))
    assert found(context={"deep": "{}"}) == []
    assert found(context={"absent": "x"}) == []
    assert found(context={'quoted "ü"\n': "a\\b\t'"}) == [23]
    assert found(context={"inner": "x"}) == []
    assert found(context={"n": "1.5"}) == [23]
    assert found(episode_ids=("e00009", "e00003", "nobody", "e00003"), sessions=("s",)) == [3, 9]
    assert found(episode_ids=("e00009",), sessions=("t",)) == []
    assert found(outcomes=("failure",), context={"tool": "t1"}, until=START + 10 * minute) == [1]
    assert found(archived=True) == []
    assert len(found(archived=None)) == 24
    assert [e.position for e in graph.page(Where(), states=(State.EMBEDDED,))] == [0, 1, 2, 3, 4]
    assert len(graph.page(Where(), states=(State.PENDING, State.LEASED))) == 19


def test_neighbours_follow_the_order_of_the_session(graph: GraphStore) -> None:
    graph.add([*episodes(6), *episodes(6, session="t", prefix="t")])

    assert ids(graph.neighbours("e00003", before=2, after=1)) == ["e00001", "e00002", "e00003", "e00004"]
    assert ids(graph.neighbours("e00000", before=2, after=2)) == ["e00000", "e00001", "e00002"]
    assert ids(graph.neighbours("e00005", before=1, after=9)) == ["e00004", "e00005"]
    assert ids(graph.neighbours("t00002", before=0, after=0)) == ["t00002"]
    assert graph.around(["e00000", "e00003", "nobody"], reach=2) == {
        "e00000": (None, None, "e00001", "e00002"),
        "e00003": ("e00001", "e00002", "e00004", "e00005"),
    }

    graph.tombstone(episode_ids=["e00002"])
    assert ids(graph.neighbours("e00003", before=2, after=0)) == ["e00000", "e00001", "e00003"]
    assert graph.neighbours("e00002", before=1, after=1) == []


def test_sessions_say_what_they_hold(graph: GraphStore) -> None:
    graph.add(
        [*episodes(3, session="b", prefix="b"), *episodes(2, session="a", prefix="a"), Episode("x", "x", "z", START)]
    )
    graph.tombstone(episode_ids=["b00000", "x"])

    found = graph.sessions()

    assert [(s.session_id, s.episodes, s.clusters) for s in found] == [("a", 2, 0), ("b", 2, 0)]
    assert (found[1].first_at, found[1].last_at) == (START + timedelta(minutes=1), START + timedelta(minutes=2))


class TestUpdate:
    def test_new_content_is_pending_again_and_voids_the_lease(self, graph: GraphStore) -> None:
        graph.add(episodes(2))
        claims = graph.claim(2, token="old", lease_seconds=60)

        changed = graph.update("e00000", content="better")

        assert (changed.content, changed.state) == ("better", State.PENDING)
        assert graph.mark_embedded("old", {"e00000": 1, "e00001": 1}) == {"e00001"}
        again = graph.claim(9, token="new", lease_seconds=60)
        assert [(c.episode.content, c.generation) for c in again] == [("better", claims[0].generation + 1)]

    def test_other_values_keep_the_state_and_mark_the_payload(self, graph: GraphStore) -> None:
        graph.add(episodes(3))
        embed(graph)

        changed = graph.update("e00001", context={"a": 1}, outcome="partial", importance=0.9)

        assert (changed.state, changed.context, changed.outcome, changed.importance) == (
            State.EMBEDDED,
            {"a": 1},
            "partial",
            0.9,
        )
        assert [row.episode for row in graph.dirty(Dirty.PAYLOAD, 9)] == [changed]

    def test_a_row_updated_while_leased_has_a_dirty_payload_once_embedded(self, graph: GraphStore) -> None:
        graph.add(episodes(1))
        graph.claim(1, token="t", lease_seconds=60)
        graph.update("e00000", importance=0.9)
        assert graph.dirty(Dirty.PAYLOAD, 9) == []

        graph.mark_embedded("t", {"e00000": 1})

        assert ids([row.episode for row in graph.dirty(Dirty.PAYLOAD, 9)]) == ["e00000"]

    def test_a_new_timestamp_moves_the_episode(self, graph: GraphStore) -> None:
        graph.add(episodes(9))
        embed(graph)
        clear(graph, Dirty.CONTEXT)

        graph.update("e00000", timestamp=START + timedelta(minutes=6, seconds=30))

        assert ids(graph.neighbours("e00000", before=1, after=1)) == ["e00006", "e00000", "e00007"]
        dirty = {row.episode.episode_id for row in graph.dirty(Dirty.CONTEXT, 99)}
        assert dirty == {"e00000", "e00001", "e00002", "e00005", "e00006", "e00007", "e00008"}
        assert ids(graph.unconsolidated("s", limit=99))[6] == "e00000"

    def test_equal_content_changes_nothing(self, graph: GraphStore) -> None:
        graph.add(episodes(1))
        embed(graph)
        assert graph.update("e00000", content="text 0 of s").state is State.EMBEDDED

    def test_a_dead_episode_gets_another_life_with_new_content(self, graph: GraphStore) -> None:
        graph.add(episodes(1))
        graph.claim(1, token="t", lease_seconds=60)
        graph.fail("t", "e00000", error="E: x", traceback="", max_attempts=1, delay_seconds=0)

        assert graph.update("e00000", importance=0.9).state is State.DEAD
        assert graph.update("e00000", content="better").state is State.PENDING
        assert graph.dead_letters() == []
        assert graph.counts().balanced

    @pytest.mark.parametrize("episode_id", ["nobody", "e00000"])
    def test_what_is_unknown_or_erased_is_not_found(self, graph: GraphStore, episode_id: str) -> None:
        graph.add(episodes(1))
        graph.tombstone(episode_ids=["e00000"])
        with pytest.raises(NotFound, match=episode_id):
            graph.update(episode_id, content="x")


def test_facts_are_kept(graph: GraphStore) -> None:
    assert graph.get_fact("k") is None
    assert graph.facts("k") == {}
    graph.put_fact("k", "v\n\u00fc")
    graph.put_fact("k", "w")
    assert graph.get_fact("k") == "w"
    for key in ("k%:b", "k%:a", "kx:a", "K%:a"):
        graph.put_fact(key, key)
    assert graph.facts("k%:") == {"k%:a": "k%:a", "k%:b": "k%:b"}
    assert list(graph.facts("k", limit=2)) == ["k", "k%:a"]
    graph.drop_fact("k")
    graph.drop_fact("k")
    assert graph.get_fact("k") is None
