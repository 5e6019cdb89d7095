"""What makes up a score: each part and its weight, speakers, neighbours, dates, repeats and late interaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest

from tests.integration.recalling import FACTS, NOON, Shelf, ids, opened, turn
from ww_core.models import Episode
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """A conversation with two clusters and a stray episode, and a session of unrelated notes; only read."""
    with opened(tmp_path_factory.mktemp("talk")) as shelf:
        stray = turn(
            99,
            "Bo: an old oven story, TRY-4711",
            timestamp=NOON - timedelta(days=60),
            outcome="success",
            importance=0.9,
        )
        shelf.store([*conversation(), stray])
        shelf.store([turn(i, f"{FACTS[i % 8]} {i}", session="notes") for i in range(60)])
        shelf.embed()
        shelf.cluster("s", {"c": ["s-0", "s-1"], "oven": ["s-18", "s-19"]})
        yield shelf


def conversation(session: str = "s") -> list[Episode]:
    """Ten subjects in turn, six turns each, two speakers."""
    subjects = ["garden", "boat", "piano", "oven", "bicycle", "lamp", "carpet", "ladder", "mirror", "kettle"]
    names = ("Ann", "Bo")
    lines = [f"{names[i % 2]}: {subject} {subject} remark{i}" for subject in subjects for i in range(6)]
    return [turn(i, line, session=session) for i, line in enumerate(lines)]


def test_a_speakers_name_is_not_searched_for_and_prefers_the_speaker(talk: Shelf) -> None:
    for name in ("Ann", "Bo"):
        found = talk.recaller().recall(RecallRequest(f"What did {name} say about the piano?", limit=3))
        assert talk.encoder.queries[-1] == "What did say about the piano?"
        assert found[0].content.startswith(f"{name}: piano")
        assert found[0].components["speaker"] > 0


def test_neighbours_count_in_a_coherent_session_only(talk: Shelf) -> None:
    coherent = talk.recaller().recall(RecallRequest("the oven", where=Where(sessions=("s",))))
    notes = talk.recaller().recall(RecallRequest("the violin", where=Where(sessions=("notes",))))
    assert "neighbours" in coherent[0].components
    assert "neighbours" not in notes[0].components


def test_a_month_in_the_query_prefers_its_episodes(shelf: Shelf) -> None:
    months = [turn(i, f"went hiking again {i}", timestamp=NOON + timedelta(days=31 * i)) for i in range(6)]
    shelf.store(months)
    shelf.embed()
    found = shelf.recaller().recall(RecallRequest("who went hiking in August 2024?"))
    assert found[0].timestamp.month == 8
    assert found[0].components["date"] > 0


@pytest.mark.parametrize("query", ["what happened on 12 March 2024?", "what was on March 12", "2024-03-12"])
def test_what_was_on_a_day_is_found_whatever_it_was(shelf: Shelf, query: str) -> None:
    """Its candidates come from the day: no signal proposes them among so many others."""
    shelf.store([turn(i, f"{FACTS[i % 8]} {i}", timestamp=NOON - timedelta(days=i / 2)) for i in range(240)])
    shelf.embed()
    found = shelf.recaller(recall_candidates=5, rerank_candidates=5).recall(RecallRequest(query))
    assert found[0].timestamp.date().isoformat() == "2024-03-12"


def test_repeats_fold_and_variety_is_on_request(shelf: Shelf) -> None:
    shelf.store([*(turn(i, "the boiler is broken") for i in range(5)), turn(5, "the boiler is broken again today")])
    shelf.store([turn(6, "a plumber repaired the boiler")])
    shelf.embed()
    found = shelf.recaller().recall(RecallRequest("boiler is broken"))
    assert len(found) == 3
    varied = shelf.recaller().recall(RecallRequest("boiler is broken", mmr=0.2, limit=2))
    assert ids(varied)[1] == "s-6"


# -- settings


@pytest.mark.parametrize(
    ("setting", "part", "query"),
    [
        ("recall_weight_content", "content", "oven"),
        ("recall_weight_context", "context", "oven"),
        ("recall_weight_bm25", "bm25", "oven"),
        ("recall_weight_bm25_context", "bm25_context", "oven"),
        ("recall_weight_neighbours", "neighbours", "oven"),
        ("recall_weight_speaker", "speaker", "Ann oven"),
        ("recall_weight_date", "date", "oven in May"),
        ("recall_weight_named", "named", "oven TRY-4711"),
        ("recall_weight_recency", "recency", "oven"),
        ("recall_weight_outcome", "outcome", "oven"),
        ("recall_weight_importance", "importance", "oven"),
        ("recall_weight_cluster", "cluster", "oven"),
        ("recall_weight_late", "late", "oven"),
    ],
)
def test_each_weight_has_a_part_that_it_turns_on_and_off(talk: Shelf, setting: str, part: str, query: str) -> None:
    request = RecallRequest(query, where=Where(sessions=("s",)), limit=100)
    on = talk.recaller(**{setting: 2.0}).recall(request)
    off = talk.recaller(**{setting: 0.0, "recall_weight_bm25_context": 0.0}).recall(request)
    assert any(abs(result.components.get(part, 0)) > 1e-3 for result in on)
    assert all(part not in result.components for result in off)


def test_the_number_of_candidates_bounds_what_is_read(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.store([turn(i, f"the train number {i}") for i in range(60)])
    shelf.embed()
    few = shelf.recaller(recall_candidates=5, recall_weight_bm25_context=0, recall_weight_context=0)
    assert len(few.recall(RecallRequest("train", limit=5))) == 5
    assert len(few.recall(RecallRequest("train", limit=50))) == 50
    read: list[int] = []
    get = shelf.graph.get

    def counted(episode_ids: Sequence[str]) -> dict[str, Episode]:
        read.append(len(episode_ids))
        return get(episode_ids)

    monkeypatch.setattr(shelf.graph, "get", counted)
    for settings in (
        {"rerank_candidates": 7},
        {"rerank_candidates": 7, "recall_weight_late": 1.0, "late_interaction_candidates": 11},
        {"rerank_candidates": 13, "recall_weight_late": 1.0, "late_interaction_candidates": 11},
    ):
        assert len(shelf.recaller(**settings).recall(RecallRequest("train number 3", limit=3))) == 3
    assert read == [7, 11, 13]


def test_late_interaction_reads_few_candidates_and_each_once(talk: Shelf) -> None:
    request = RecallRequest("the oven remark20", where=Where(sessions=("s",)))
    made = talk.recaller(recall_weight_late=1.0, late_interaction_candidates=5)
    before = talk.encoder.encoded
    assert any("late" in result.components for result in made.recall(request))
    first = talk.encoder.encoded - before
    assert made.recall(request)[0].components["late"] > 0
    assert 5 <= first <= 5 * 3
    assert talk.encoder.encoded - before == first, "the second time they are in memory"
    forgetful = talk.recaller(recall_weight_late=1.0, late_interaction_candidates=5, late_interaction_kept=1)
    forgetful.recall(request)
    before = talk.encoder.encoded
    forgetful.recall(request)
    assert talk.encoder.encoded - before > 1
