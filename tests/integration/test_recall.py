"""Recall finds what is stored, fresh and forgotten as it is, within its filters, with a model and without."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.recalling import FACTS, NOON, Shelf, ids, opened, turn, with_facts
from ww_core.errors import InvalidInput
from ww_core.models import Recall
from ww_core.recall.request import RecallRequest
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import Hit, PointChange, Search, Where


@pytest.fixture(scope="module")
def read_facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The facts, for tests that only read."""
    with opened(tmp_path_factory.mktemp("facts")) as shelf:
        yield with_facts(shelf)


@pytest.mark.parametrize("number", range(len(FACTS)))
def test_every_fact_is_found_by_its_own_words(read_facts: Shelf, number: int) -> None:
    words = FACTS[number].split()
    found = read_facts.recaller().recall(RecallRequest(" ".join(words[1:4])))
    assert ids(found)[0] == f"s-{number}"
    assert found.mode == "flat"


def test_scores_are_the_sum_of_their_parts_best_first(read_facts: Shelf) -> None:
    found = read_facts.recaller().recall(RecallRequest("the disk is full", explain=True))
    assert len(found) == len(FACTS)
    for result in found:
        assert sum(result.components.values()) == pytest.approx(result.score, abs=1e-4)
    scores = [result.score for result in found]
    assert scores == sorted(scores, reverse=True)


def test_pages_follow_each_other(read_facts: Shelf) -> None:
    recaller = read_facts.recaller()
    everything = ids(recaller.recall(RecallRequest("the train", limit=8)))
    pages = [ids(recaller.recall(RecallRequest("the train", limit=3, offset=start))) for start in (0, 3, 6)]
    assert [one for page in pages for one in page] == everything


@pytest.mark.parametrize(
    "request_",
    [
        RecallRequest("  "),
        RecallRequest("x", limit=0),
        RecallRequest("x", limit=10**9),
        RecallRequest("x", offset=-1),
        RecallRequest("x", mmr=1.5),
    ],
)
def test_a_senseless_request_is_refused(read_facts: Shelf, request_: RecallRequest) -> None:
    with pytest.raises(InvalidInput):
        read_facts.recaller().recall(request_)


def test_an_empty_memory_answers_nothing(shelf: Shelf) -> None:
    assert ids(shelf.recaller().recall(RecallRequest("anything"))) == []


# -- freshness and truth


def test_what_was_just_stored_is_found_before_it_is_embedded(facts: Shelf) -> None:
    facts.store([turn(100, "the ferry to Oslo sails at dawn")])
    assert ids(facts.recaller().recall(RecallRequest("when does the ferry to Oslo sail")))[0] == "s-100"
    facts.encoder.reachable = False
    lexical = facts.recaller().recall(RecallRequest("ferry to Oslo"))
    assert (lexical.mode, ids(lexical)[0]) == ("bm25", "s-100")


def test_what_was_just_corrected_is_found_by_its_new_words_alone(facts: Shelf) -> None:
    facts.ca1.add([facts.graph.update("s-1", content="the ferry to Oslo sails at dawn")])
    found = facts.recaller().recall(RecallRequest("when does the ferry to Oslo sail"))
    assert ids(found)[0] == "s-1"
    assert ids(facts.recaller().recall(RecallRequest("green tea")))[0] != "s-1"


def test_what_was_just_stored_is_found_in_an_empty_memory(shelf: Shelf) -> None:
    shelf.store([turn(0, "the ferry sails"), turn(1, "a quiet evening")])
    assert ids(shelf.recaller().recall(RecallRequest("ferry")))[0] == "s-0"


def test_a_burst_of_stores_costs_a_query_only_a_few_embeddings(facts: Shelf) -> None:
    facts.store([turn(100 + i, f"note number {i}") for i in range(40)])
    before = facts.encoder.encoded
    facts.recaller().recall(RecallRequest("note"))
    assert facts.encoder.encoded - before <= 4


def test_what_is_embedded_leaves_the_buffer(facts: Shelf) -> None:
    assert len(facts.ca1) == len(FACTS)
    facts.recaller().recall(RecallRequest("tea"))
    assert len(facts.ca1) == 0


def test_what_was_forgotten_never_appears_though_its_points_remain(facts: Shelf) -> None:
    recaller = facts.recaller()
    assert ids(recaller.recall(RecallRequest("green tea")))[0] == "s-1"
    facts.store([turn(50, "green tea again")])
    facts.graph.tombstone(episode_ids=["s-1"])
    assert "s-1" not in ids(recaller.recall(RecallRequest("green tea")))


def test_the_record_decides_where_the_index_is_stale(facts: Shelf) -> None:
    facts.graph.update("s-1", outcome="failure", timestamp=NOON - timedelta(days=9))
    recaller = facts.recaller()
    assert "s-1" not in ids(recaller.recall(RecallRequest("green tea", where=Where(since=NOON))))
    assert ids(recaller.recall(RecallRequest("green tea")))[0] == "s-1"
    assert recaller.recall(RecallRequest("green tea"))[0].outcome == "failure"


# -- filters


def test_filters_choose_by_session_time_outcome_and_context(shelf: Shelf) -> None:
    shelf.store(
        [
            turn(0, "deploy one", session="a", outcome="success", context={"tool": "kubectl"}),
            turn(1, "deploy two", session="a", outcome="failure", context={"tool": "helm"}),
            turn(2, "deploy three", session="b", outcome="failure", context={"tool": "kubectl"}),
        ]
    )
    shelf.embed()

    def found(**parts: object) -> set[str]:
        return set(ids(shelf.recaller().recall(RecallRequest("deploy", where=Where(**parts)))))  # type: ignore[arg-type]

    assert found() == {"a-0", "a-1", "b-2"}
    assert found(sessions=("a",)) == {"a-0", "a-1"}
    assert found(outcomes=("failure",)) == {"a-1", "b-2"}
    assert found(context={"tool": "kubectl"}) == {"a-0", "b-2"}
    assert found(since=NOON + timedelta(seconds=30), until=NOON + timedelta(seconds=60)) == {"a-1"}
    assert found(sessions=("a",), outcomes=("failure",), context={"tool": "kubectl"}) == set()


_numbers = count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with opened(tmp_path_factory.mktemp("shared")) as empty:
        yield empty


WORDS = ["disk", "tea", "train", "kitten", "rain", "violin", "server", "morning"]
episodes_of_sessions = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.lists(st.sampled_from(WORDS), min_size=1, max_size=4)),
    min_size=1,
    max_size=25,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(stored=episodes_of_sessions, embedded=st.integers(0, 25), session=st.sampled_from(["a", "b", "c"]))
def test_a_session_filter_never_leaks(
    shared: Shelf, stored: list[tuple[str, list[str]]], embedded: int, session: str
) -> None:
    example = next(_numbers)  # sessions of their own for each example: the stores are opened once
    episodes = [turn(i, " ".join(words), session=f"{name}{example}") for i, (name, words) in enumerate(stored)]
    shared.store(episodes[:embedded])
    shared.embed()
    shared.store(episodes[embedded:])
    own = {e.episode_id: e.content for e in episodes if e.session_id == f"{session}{example}"}
    where = Where(sessions=(f"{session}{example}",))
    for mode in ("flat", "hierarchical"):
        found = shared.recaller().recall(RecallRequest(" ".join(WORDS), where=where, limit=50, mode=mode))
        assert set(ids(found)) <= set(own)
        assert {result.content for result in found} == set(own.values())


# -- without a model


def test_without_a_model_words_decide(facts: Shelf) -> None:
    facts.encoder.reachable = False
    found = facts.recaller().recall(RecallRequest("violin strings"))
    assert found.mode == "bm25"
    assert ids(found)[0] == "s-7"
    assert facts.metrics.total("recall.without_model") == 1


# -- hooks and figures


def test_hooks_see_the_request_and_the_answer(facts: Shelf) -> None:
    facts.hooks.add("before_recall", lambda request: RecallRequest("violin", limit=request.limit))
    facts.hooks.add("after_recall", lambda answer: Recall(answer.query, "seen", answer.took_ms, answer.results))
    found = facts.recaller().recall(RecallRequest("tea"))
    assert (found.query, found.mode, ids(found)[0]) == ("violin", "seen", "s-7")


@pytest.mark.parametrize("results", [("a",), (None,), ({"content": "x"},), None, 5])
def test_an_answer_of_junk_is_passed_over(facts: Shelf, results: object) -> None:
    facts.hooks.add("after_recall", lambda answer: replace(answer, results=results))
    assert ids(facts.recaller().recall(RecallRequest("violin")))[0] == "s-7"
    assert facts.metrics.total("hooks.after_recall.failures") == 1


def test_a_recollection_of_junk_is_passed_over(facts: Shelf) -> None:
    facts.hooks.add("after_recall", lambda answer: replace(answer, results=[replace(answer[0], content=None)]))
    facts.hooks.add("after_recall", lambda answer: replace(answer, results=list(answer[:1])))
    assert facts.recaller().recall(RecallRequest("violin")).results[0].episode_id == "s-7"
    assert facts.metrics.total("hooks.after_recall.failures") == 1


@pytest.mark.parametrize("changed", [{"query": None}, {"query": " "}, {"where": "s"}, {"limit": 0}])
def test_a_request_of_junk_is_passed_over(facts: Shelf, changed: dict[str, Any]) -> None:
    facts.hooks.add("before_recall", lambda request: replace(request, **changed))
    assert ids(facts.recaller().recall(RecallRequest("violin")))[0] == "s-7"
    assert facts.metrics.total("hooks.before_recall.failures") == 1


def test_each_stage_is_timed(facts: Shelf) -> None:
    facts.recaller().recall(RecallRequest("tea"))
    stages = facts.metrics.snapshot().stages
    assert {"recall.embed", "recall.search", "recall.fusion", "recall.rerank"} <= stages.keys()


# -- the cold collection


def test_a_recall_of_what_lives_never_searches_the_cold_collection(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.store([turn(i, f"{FACTS[i % 8]} {i}") for i in range(60)])
    shelf.embed()
    shelf.graph.archive(["s-0"])
    shelf.vectors.change([PointChange("s-0", archived=True)])
    cold: list[int] = []
    search = Shard.search

    def noted(shard: Shard, searches: Sequence[Search]) -> list[list[Hit]]:
        if shard._cold:
            cold.append(len(searches))
        return search(shard, searches)

    monkeypatch.setattr(Shard, "search", noted)
    recaller = shelf.recaller(recall_candidates=20)  # fewer than there are: scores are completed
    assert recaller.recall(RecallRequest("the disk of the server", limit=5)).results
    assert cold == []
    everything = RecallRequest("the disk of the server", Where(archived=None), limit=60)
    assert "s-0" in {one.episode_id for one in recaller.recall(everything)}
    assert cold
