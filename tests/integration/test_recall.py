"""Recall on the real embedded stores: filters, freshness, clusters, weights and what happens without a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, cycle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.recalling import NOON, Shelf, open_shelf, turn
from ww_core.errors import InvalidInput
from ww_core.models import Episode, Recall
from ww_core.observability.summary import GAP
from ww_core.recall.hierarchy import Gap
from ww_core.recall.request import RecallRequest
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import Hit, PointChange, Search, Where

FACTS = [
    "the disk of the server is full",
    "green tea tastes best in the morning",
    "the train to Berlin leaves at nine",
    "a kitten sleeps under the table",
    "the invoice was paid on Monday",
    "rain is expected over the mountains",
    "the password expires in a week",
    "a violin needs new strings",
]


@contextmanager
def opened(directory: Path) -> Iterator[Shelf]:
    shelf = open_shelf(directory)
    try:
        yield shelf
    finally:
        shelf.vectors.close()
        shelf.graph.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with opened(tmp_path) as empty:
        yield empty


@pytest.fixture
def facts(shelf: Shelf) -> Shelf:
    return with_facts(shelf)


@pytest.fixture(scope="module")
def read_facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """The facts, for tests that only read."""
    with opened(tmp_path_factory.mktemp("facts")) as shelf:
        yield with_facts(shelf)


def with_facts(shelf: Shelf) -> Shelf:
    shelf.store([turn(i, fact) for i, fact in enumerate(FACTS)])
    shelf.embed()
    return shelf


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """A conversation with two clusters and a stray episode, and a session of unrelated notes; only read."""
    with opened(tmp_path_factory.mktemp("talk")) as shelf:
        stray = turn(
            99, "Bo: an old oven story", timestamp=NOON - timedelta(days=60), outcome="success", importance=0.9
        )
        shelf.store([*conversation(), stray])
        shelf.store([turn(i, f"{FACTS[i % 8]} {i}", session="notes") for i in range(60)])
        shelf.embed()
        shelf.cluster("s", {"c": ["s-0", "s-1"], "oven": ["s-18", "s-19"]})
        yield shelf


def ids(recall: Recall) -> list[str]:
    return [result.episode_id for result in recall]


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


# -- conversations


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


def test_the_number_of_candidates_bounds_what_is_read(shelf: Shelf) -> None:
    shelf.store([turn(i, f"the train number {i}") for i in range(60)])
    shelf.embed()
    few = shelf.recaller(recall_candidates=5, recall_weight_bm25_context=0, recall_weight_context=0)
    assert len(few.recall(RecallRequest("train", limit=5))) == 5
    assert len(few.recall(RecallRequest("train", limit=50))) == 50
    narrow = shelf.recaller(rerank_candidates=7)
    ranked = narrow.recall(RecallRequest("train number 3", limit=3))
    assert len(ranked) == 3


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


def test_each_stage_is_timed(facts: Shelf) -> None:
    facts.recaller().recall(RecallRequest("tea"))
    stages = facts.metrics.snapshot().stages
    assert {"recall.embed", "recall.search", "recall.fusion", "recall.rerank"} <= stages.keys()


# -- hierarchical search


@pytest.fixture
def clustered(shelf: Shelf) -> Shelf:
    """Four clusters of ten; one of cluster tea's words stands in an episode of cluster disk."""
    topics = {
        "disk": "disk server volume full",
        "tea": "tea cup leaves green",
        "train": "train platform ticket late",
        "cat": "cat paw fur sleeps",
    }
    groups: dict[str, list[str]] = {}
    for t, (name, words) in enumerate(topics.items()):
        rows = [turn(t * 10 + i, f"{words} {name}{i}", seconds=7200) for i in range(10)]
        if name == "disk":
            rows[9] = turn(9, "disk server volume full tea", seconds=7200)
        shelf.store(rows)
        groups[name] = [row.episode_id for row in rows]
    shelf.embed()
    shelf.cluster("s", groups)
    return shelf


MEANING = {"recall_weight_bm25": 0, "recall_weight_bm25_context": 0}
"""Without words."""


def test_words_are_looked_up_in_every_cluster(clustered: Shelf) -> None:
    recaller = clustered.recaller(cluster_selection_k=1)
    found = recaller.recall(RecallRequest("green leaves train7", mode="hierarchical", limit=20))
    assert found.mode == "hierarchical"
    assert "s-27" in ids(found)


def test_hierarchical_search_looks_into_the_nearest_clusters_only(clustered: Shelf) -> None:
    recaller = clustered.recaller(cluster_selection_k=1, **MEANING)
    found = recaller.recall(RecallRequest("green tea leaves", mode="hierarchical", limit=20))
    assert found.mode == "hierarchical"
    assert {result.cluster.cluster_id for result in found if result.cluster} == {"tea"}
    assert found[0].cluster is not None
    assert found[0].cluster.label == "about tea"
    assert "s-9" in ids(recaller.recall(RecallRequest("green tea leaves", mode="flat", limit=20)))


def test_more_clusters_find_more(clustered: Shelf) -> None:
    def reach(k: int) -> set[str]:
        recaller = clustered.recaller(cluster_selection_k=k, hierarchical_search=True, **MEANING)
        found = recaller.recall(RecallRequest("tea on the train", limit=50))
        return {result.cluster.cluster_id for result in found if result.cluster}

    assert len(reach(1)) == 1
    assert len(reach(2)) == 2
    assert len(reach(9)) == 4


def test_what_no_run_has_seen_is_found_by_clusters_too(clustered: Shelf) -> None:
    clustered.store([turn(90, "a zebra crossed the street", seconds=7200)])
    clustered.embed()
    clustered.store([turn(91, "a zebra in the zoo", seconds=7200)])
    found = clustered.recaller(cluster_selection_k=1).recall(RecallRequest("zebra", mode="hierarchical"))
    assert set(ids(found)[:2]) == {"s-90", "s-91"}


def test_a_new_run_is_seen_by_the_next_query(clustered: Shelf) -> None:
    recaller = clustered.recaller(cluster_selection_k=1)
    recaller.recall(RecallRequest("tea", mode="hierarchical"))
    clustered.cluster("s", {"all": [f"s-{i}" for i in range(40)]})
    found = recaller.recall(RecallRequest("tea", mode="hierarchical", limit=50))
    assert {result.cluster.label for result in found if result.cluster} == {"about all"}


def test_a_session_without_clusters_is_searched_flat(facts: Shelf) -> None:
    assert facts.recaller(hierarchical_search=True).recall(RecallRequest("tea")).mode == "flat"


def test_auto_routes_only_where_it_pays(clustered: Shelf) -> None:
    request = RecallRequest("tea")
    assert clustered.recaller(cluster_selection_k=1).recall(request).mode == "flat"
    small = clustered.recaller(cluster_selection_k=1, hierarchical_min_episodes=10)
    assert small.recall(request).mode == "hierarchical"
    wide = clustered.recaller(cluster_selection_k=3, hierarchical_min_episodes=10)
    assert wide.recall(request).mode == "flat"


def test_auto_looks_at_how_many_the_filter_leaves(clustered: Shelf) -> None:
    recaller = clustered.recaller(cluster_selection_k=1, hierarchical_min_episodes=20)
    wide = Where(sessions=("s",), until=NOON + timedelta(hours=100))
    narrow = Where(sessions=("s",), until=NOON + timedelta(hours=20))
    assert recaller.recall(RecallRequest("tea", where=wide)).mode == "hierarchical"
    assert recaller.recall(RecallRequest("tea", where=narrow)).mode == "flat"


def test_auto_leaves_bad_clusters_and_comes_back_to_good_ones(clustered: Shelf) -> None:
    good = {name: [f"s-{10 * t + i}" for i in range(10)] for t, name in enumerate(("disk", "tea", "train", "cat"))}
    bad = {f"mixed{j}": [f"s-{i}" for i in range(j, 40, 4)] for j in range(4)}
    draws = cycle((0.005, *(0.5,) * 9))
    recaller = clustered.recaller(
        chance=lambda: next(draws), cluster_selection_k=1, hierarchical_min_episodes=10, hierarchical_gap_sample=0.1
    )

    def share_by_clusters() -> float:
        words = ("disk server", "tea cup", "train ticket", "cat paw")
        answers = [recaller.recall(RecallRequest(words[i % 4], limit=5)).mode for i in range(40)]
        return answers.count("hierarchical") / len(answers)

    assert share_by_clusters() == 1
    clustered.cluster("s", bad)
    share_by_clusters()
    assert share_by_clusters() == 0
    assert clustered.metrics.gauges()[GAP] > 0.1
    clustered.cluster("s", good)
    assert any(share_by_clusters() > 0.5 for _ in range(20))


def test_the_gap_is_measured_and_auto_goes_back_to_flat(clustered: Shelf) -> None:
    recaller = clustered.recaller(
        chance=lambda: 0.5, cluster_selection_k=1, hierarchical_min_episodes=10, hierarchical_gap_sample=0.6
    )
    modes = [recaller.recall(RecallRequest("tea on the train", limit=15)).mode for _ in range(8)]
    assert (modes[0], modes[-1]) == ("hierarchical", "flat")
    assert 0.1 < clustered.metrics.gauges()[GAP] <= 1
    unmeasured = clustered.recaller(cluster_selection_k=1, hierarchical_min_episodes=10)
    assert {unmeasured.recall(RecallRequest("tea on the train")).mode for _ in range(8)} == {"hierarchical"}
    lenient = clustered.recaller(
        chance=lambda: 0.5,
        cluster_selection_k=1,
        hierarchical_min_episodes=10,
        hierarchical_gap_sample=0.6,
        hierarchical_gap_limit=1.0,
    )
    assert {lenient.recall(RecallRequest("tea on the train")).mode for _ in range(8)} == {"hierarchical"}


def test_an_unmeasured_gap_is_no_number() -> None:
    assert Gap().value != Gap().value


def test_a_cluster_can_be_the_filter(clustered: Shelf) -> None:
    found = clustered.recaller().recall(RecallRequest("what do I know", where=Where(cells=("cat",)), limit=50))
    assert set(ids(found)) == {f"s-{i}" for i in range(30, 40)}


def test_late_interaction_reads_few_candidates_and_each_once(talk: Shelf) -> None:
    request = RecallRequest("the oven remark20", where=Where(sessions=("s",)))
    made = talk.recaller(recall_weight_late=1.0, late_interaction_candidates=5)
    before = talk.encoder.encoded
    assert any("late" in result.components for result in made.recall(request))
    first = talk.encoder.encoded - before
    assert made.recall(request)[0].components["late"] > 0
    assert 5 < first <= 1 + 5 * 3
    assert talk.encoder.encoded - before - first == 1
    forgetful = talk.recaller(recall_weight_late=1.0, late_interaction_candidates=5, late_interaction_kept=1)
    forgetful.recall(request)
    before = talk.encoder.encoded
    forgetful.recall(request)
    assert talk.encoder.encoded - before > 1


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
