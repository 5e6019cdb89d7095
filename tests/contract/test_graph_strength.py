"""What recalls and decay record."""

from __future__ import annotations

from datetime import timedelta

from tests.contract.graphs import START, clear, embed, episodes, ids
from ww_core.stores.ports import Dirty, GraphStore, Strength, Where


def test_recalls_are_recorded_and_an_earlier_one_changes_nothing(graph: GraphStore) -> None:
    graph.add(episodes(3))
    embed(graph)
    clear(graph, Dirty.PAYLOAD)
    later = START + timedelta(days=2)
    graph.strengthen([Strength("e00001", 42.5, later), Strength("nobody", 1.0, later)])
    graph.strengthen([Strength("e00001", 7.0, START), Strength("e00000", 31.0, START)])
    found = graph.get(["e00000", "e00001", "e00002"])
    assert [(e.stability, e.last_recalled_at) for e in found.values()] == [(31.0, START), (42.5, later), (0.0, None)]
    assert graph.dirty(Dirty.PAYLOAD, 10) == []


def test_archived_episodes_are_kept_apart_until_they_are_wanted_again(graph: GraphStore) -> None:
    graph.add(episodes(4))
    embed(graph)
    clear(graph, Dirty.PAYLOAD)
    assert graph.archive(["e00001", "e00002", "nobody"]) == 2
    assert graph.archive(["e00001"]) == 0
    assert [row.episode.episode_id for row in graph.dirty(Dirty.PAYLOAD, 10)] == ["e00001", "e00002"]
    assert ids(graph.page(Where(sessions=("s",)), limit=10)) == ["e00000", "e00003"]
    assert ids(graph.page(Where(sessions=("s",), archived=True), limit=10)) == ["e00001", "e00002"]
    assert graph.counts().embedded == 4
    assert graph.archive(["e00001"], archived=False) == 1
    assert ids(graph.page(Where(sessions=("s",)), limit=10)) == ["e00000", "e00001", "e00003"]


def test_erased_episodes_are_neither_strengthened_nor_archived(graph: GraphStore) -> None:
    graph.add(episodes(1))
    embed(graph)
    graph.tombstone(episode_ids=["e00000"])
    graph.strengthen([Strength("e00000", 9.0, START)])
    assert graph.archive(["e00000"]) == 0
