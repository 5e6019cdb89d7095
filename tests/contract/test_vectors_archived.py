"""Archived points live in a cold collection of their own and are found where they are asked for, on each store."""

from __future__ import annotations

import pytest

from tests.contract.vector_stores import MODEL, cold_points, ids, point, qdrant, ranked, unit, walked, words
from ww_core.errors import ConfigurationError
from ww_core.stores.ports import BM25, CONTEXT, PointChange, VectorStore, Where

ARCHIVED = Where(archived=True)
EVERYTHING = Where(archived=None)


@pytest.fixture
def faded(store: VectorStore) -> VectorStore:
    """``old`` is archived, in two windows and with word pieces; ``new`` lives."""
    store.upsert(
        [
            point("old", unit(1.0), windows=2, bm25=words(t1=1.0, t2=1.0), context={"tool": "git"}, pieces=b"pieces"),
            point("old", unit(0.0, 1.0), window=1, windows=2),
            point("new", unit(1.0, 1.0), bm25=words(t2=1.0)),
        ]
    )
    store.change([PointChange("old", archived=True)])
    return store


def test_archived_points_move_to_the_cold_collection_whole(faded: VectorStore) -> None:
    assert cold_points(faded) == 2
    assert ids(faded) == {"new"}
    assert ids(faded, ARCHIVED) == {"old"}
    assert ids(faded, EVERYTHING) == {"old", "new"}
    assert ids(faded, Where(archived=True, context={"tool": "git"})) == {"old"}
    assert [name for name, _ in ranked(faded, BM25, words(t1=1.0), where=EVERYTHING)] == ["old"]
    assert faded.generations(["old", "new"]) == {"old": (1, 2), "new": (1, 1)}
    assert [stored.episode_id for stored in faded.vectors(["old", "new"])] == ["old", "new"]
    assert faded.vectors(["old"])[0].vector == pytest.approx(unit(1.0, 1.0), abs=1e-6)
    assert faded.pieces(["old", "new"]) == {"old": b"pieces"}
    assert (faded.count(), faded.count(Where()), faded.count(ARCHIVED), faded.count(EVERYTHING)) == (3, 1, 2, 3)
    assert faded.info()["points"] == 3
    for limit in (1, 2, 1000):
        assert sorted(walked(faded, limit)) == [("new", 0), ("old", 0), ("old", 1)]


def test_archived_points_come_back_when_they_live_again(faded: VectorStore) -> None:
    faded.change([PointChange("old", archived=False), PointChange("absent", archived=False)])
    assert cold_points(faded) == 0
    assert ids(faded) == {"old", "new"}
    assert ids(faded, ARCHIVED) == set()
    assert faded.pieces(["old"]) == {"old": b"pieces"}


def test_changes_reach_archived_points(faded: VectorStore) -> None:
    faded.change([PointChange("old", dense={CONTEXT: unit(0, 0, 1.0)}, outcome="failure")])
    assert ids(faded, Where(archived=True, outcomes=("failure",))) == {"old"}
    assert cold_points(faded) == 2


def test_cells_reach_archived_points_and_both_kinds_of_vectors_come_in_order(faded: VectorStore) -> None:
    faded.set_cells(["new", "old", "absent"], ("c1",))
    assert ids(faded, Where(archived=None, cells=("c1",))) == {"old", "new"}
    assert ids(faded, Where(archived=True, cells=("c1",))) == {"old"}
    assert (cold_points(faded), faded.count()) == (2, 3)
    for asked in (["new", "old"], ["old", "absent", "new", "old"], ["absent", "old"], ["new"], ["absent"], []):
        found = faded.vectors(asked)
        assert [stored.episode_id for stored in found] == [name for name in asked if name != "absent"]
        for stored in found:
            assert stored.vector == pytest.approx(unit(1.0, 1.0), abs=1e-6)


def test_late_writer_does_not_bring_an_archived_episode_back_twice(faded: VectorStore) -> None:
    faded.upsert([point("old", unit(0, 0, 1.0), generation=1)])
    assert faded.generations(["old"]) == {"old": (1, 2)}
    assert cold_points(faded) == 2
    faded.upsert([point("old", unit(0, 0, 1.0), generation=2)])
    assert faded.generations(["old"]) == {"old": (2, 1)}
    assert cold_points(faded) == 0
    faded.upsert([point("old", unit(0, 0, 1.0), generation=3, archived=True)])
    assert faded.generations(["old"]) == {"old": (3, 1)}
    assert sorted(walked(faded)) == [("new", 0), ("old", 0)]
    assert cold_points(faded) == 1


def test_erasure_reaches_archived_points(faded: VectorStore) -> None:
    assert faded.delete(["old", "new", "absent"]) == 3
    assert faded.count() == 0
    assert walked(faded) == []


def test_dropped_collections_are_gone_until_they_are_made_anew() -> None:
    store = qdrant(qdrant_url=":memory:")
    store.ensure(MODEL)
    store.upsert([point("new"), point("old", archived=True)])
    assert (store.count(), cold_points(store)) == (2, 1)
    store.drop()
    assert (store.count(), walked(store), store.generations(["new", "old"])) == (0, [], {})
    with pytest.raises(ConfigurationError, match="no vector collection"):
        store.upsert([point("old", archived=True)])
    assert "cold" not in store.info()
    store.ensure(MODEL)
    store.upsert([point("old", archived=True)])
    assert (store.count(), cold_points(store)) == (1, 1)
    store.close()
