"""Hierarchical recall looks into the nearest clusters only, where that pays, and misses nothing new."""

from __future__ import annotations

from datetime import timedelta
from itertools import cycle

import pytest

from tests.integration.recalling import NOON, Shelf, ids, turn
from ww_core.observability.summary import GAP
from ww_core.recall.hierarchy import Gap
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where


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


def test_what_words_find_in_other_clusters_has_the_score_of_a_flat_search(clustered: Shelf) -> None:
    recaller = clustered.recaller(cluster_selection_k=1)
    by_clusters, flat = (
        recaller.recall(RecallRequest("disk tea train cat", mode=mode, limit=40)) for mode in ("hierarchical", "flat")
    )
    assert (by_clusters.mode, flat.mode, len(flat)) == ("hierarchical", "flat", 40)
    assert {r.episode_id: r.score for r in by_clusters} == pytest.approx(
        {r.episode_id: r.score for r in flat}, abs=1e-4
    )


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
        chance=lambda: next(draws),
        cluster_selection_k=1,
        hierarchical_min_episodes=10,
        hierarchical_gap_sample=0.1,
        **MEANING,
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
        chance=lambda: 0.5,
        cluster_selection_k=1,
        hierarchical_min_episodes=10,
        hierarchical_gap_sample=0.6,
        **MEANING,
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
        **MEANING,
    )
    assert {lenient.recall(RecallRequest("tea on the train")).mode for _ in range(8)} == {"hierarchical"}


def test_an_unmeasured_gap_is_no_number() -> None:
    assert Gap().value != Gap().value


def test_a_cluster_can_be_the_filter(clustered: Shelf) -> None:
    found = clustered.recaller().recall(RecallRequest("what do I know", where=Where(cells=("cat",)), limit=50))
    assert set(ids(found)) == {f"s-{i}" for i in range(30, 40)}
