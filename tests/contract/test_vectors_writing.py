"""What is written to a vector store: generations, changes, deletion, and how it is read back, on each store."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.contract.vector_stores import MODEL, NOON, OTHER_MODEL, ids, opened, point, ranked, unit, walked, words
from ww_core.errors import ConfigurationError
from ww_core.stores.ports import BM25, BM25_CONTEXT, CONTENT, CONTEXT, Centroid, PointChange, Search, VectorStore, Where

# -- the collection


def test_store_without_collection_is_empty(bare: VectorStore) -> None:
    bare.ping()
    assert bare.count() == 0
    assert bare.search([Search(CONTENT, unit(1.0)), Search(BM25, words(t1=1))]) == [[], []]
    assert bare.generations(["a"]) == {}
    assert list(bare.vectors(["a"])) == []
    assert bare.walk() == ([], None)
    assert bare.centroids("s", "r") == []
    assert bare.delete(["a"]) == 0
    bare.drop_centroids("s", keep=[])
    assert bare.info()["points"] == 0
    with pytest.raises(ConfigurationError, match="no vector collection"):
        bare.upsert([point("a")])
    with pytest.raises(ConfigurationError, match="no vector collection"):
        bare.set_cells(["a"], ("c1",))


def test_ensuring_twice_is_harmless(store: VectorStore) -> None:
    store.upsert([point("a")])
    store.ensure(MODEL)
    assert store.count() == 1


def test_another_model_is_refused_by_name(store: VectorStore) -> None:
    with pytest.raises(ConfigurationError, match=r"first-model.*second-model"):
        store.ensure(OTHER_MODEL)


# -- writing


def test_late_writer_of_an_older_generation_changes_nothing(store: VectorStore) -> None:
    store.upsert([point("a", unit(1), generation=2)])
    store.upsert([point("a", unit(-1), generation=1, window=w, windows=3) for w in range(3)])
    assert store.generations(["a"]) == {"a": (2, 1)}
    assert ranked(store, CONTENT, unit(1.0)) == [("a", pytest.approx(1.0, abs=1e-5))]


def test_repeated_write_of_a_generation_changes_nothing(store: VectorStore) -> None:
    store.upsert([point("a", unit(1))])
    store.change([PointChange("a", cells=("c1",), dense={CONTEXT: unit(0, 1)})])
    store.upsert([point("a", unit(-1))])
    assert ranked(store, CONTENT, unit(1.0))[0][1] == pytest.approx(1.0, abs=1e-5)
    assert store.count(Where(cells=("c1",))) == 1


def test_interrupted_write_is_completed_by_repeating_it(store: VectorStore) -> None:
    windows = [point("a", window=w, windows=3) for w in range(3)]
    store.upsert(windows[1:2])
    store.upsert(windows)
    assert store.generations(["a"]) == {"a": (1, 3)}


def test_newer_generation_with_fewer_windows_drops_the_rest(store: VectorStore) -> None:
    store.upsert([*(point("a", window=w, windows=4) for w in range(4)), point("b", window=0)])
    store.upsert([point("a", window=w, windows=2, generation=2) for w in range(2)])
    assert store.generations(["a", "b"]) == {"a": (2, 2), "b": (1, 1)}
    assert sorted(walked(store)) == [("a", 0), ("a", 1), ("b", 0)]


def test_newer_generation_replaces_vectors_and_payload(store: VectorStore) -> None:
    store.upsert([point("a", unit(1), cells=("c1",), context={"k": "old"})])
    store.upsert([point("a", unit(0, 1), generation=2, context={"k": "new"})])
    assert store.count(Where(cells=("c1",))) == 0
    assert store.count(Where(context={"k": "old"})) == 0
    assert store.count(Where(context={"k": "new"})) == 1
    assert ranked(store, CONTENT, unit(0, 1))[0][1] == pytest.approx(1.0, abs=1e-5)


def test_two_generations_in_one_call_keep_the_newer(store: VectorStore) -> None:
    store.upsert([point("a", unit(0, 1), generation=3), point("a", unit(1), generation=2, window=1), point("a")])
    assert store.generations(["a"]) == {"a": (3, 1)}


def test_writing_nothing_is_possible(store: VectorStore) -> None:
    store.upsert([])
    store.change([])
    store.put_centroids([])
    assert store.search([]) == []
    assert store.count() == 0


# -- changing


def test_change_replaces_only_what_it_names(store: VectorStore) -> None:
    store.upsert([point("a", unit(1), outcome="failure", context={"k": "v"}, cells=("c1",), window=w) for w in (0, 1)])
    store.change([PointChange("a", dense={CONTEXT: unit(0, 1)}, sparse={BM25_CONTEXT: words(t9=1.0)})])
    assert ranked(store, CONTENT, unit(1.0))[0][1] == pytest.approx(1.0, abs=1e-5)
    assert ranked(store, CONTEXT, unit(0, 1))[0][1] == pytest.approx(1.0, abs=1e-5)
    assert [name for name, _ in ranked(store, BM25_CONTEXT, words(t9=1.0))] == ["a"]
    assert ranked(store, BM25_CONTEXT, words(t1=1.0)) == []
    assert [name for name, _ in ranked(store, BM25, words(t1=1.0))] == ["a"]
    assert store.count(Where(outcomes=("failure",), context={"k": "v"}, cells=("c1",))) == 2


def test_change_of_each_payload_field(store: VectorStore) -> None:
    store.upsert([point("a", cells=("c1",)), point("b")])
    later = NOON + timedelta(days=1)
    store.change(
        [
            PointChange(
                "a",
                timestamp=later,
                outcome="success",
                context={"k": "v"},
                importance=0.9,
                cells=("c2", "c3"),
                archived=True,
            )
        ]
    )
    for where in (
        Where(since=later, archived=None),
        Where(outcomes=("success",), archived=None),
        Where(context={"k": "v"}, archived=None),
        Where(cells=("c3",), archived=None),
        Where(archived=True),
    ):
        assert ids(store, where) == {"a"}
    store.change([PointChange("a", cells=(), context={}, archived=False)])
    assert ids(store, Where(cells=("nothing",), uncelled=True)) == {"a", "b"}
    assert ids(store, Where(context={"k": "v"})) == set()


def test_many_different_changes_of_which_most_are_so_already(store: VectorStore) -> None:
    names = [f"n{i:02}" for i in range(40)]
    made = [point(name, minutes=i, window=w, windows=2) for i, name in enumerate(names) for w in range(2)]
    store.upsert(made)
    store.change([PointChange(name, cells=("c1",), importance=0.5) for name in names[:30]])
    store.change(
        [
            PointChange(
                name,
                timestamp=NOON + timedelta(minutes=i),
                outcome="failure" if i == 7 else None,
                context={"n": str(i)} if i % 20 == 3 else {},
                importance=0.5,
                cells=("c1",) if i < 35 else ("c2",),
                archived=i >= 38,
            )
            for i, name in enumerate(names)
        ]
        + [PointChange("ghost", timestamp=NOON, cells=("c1",))]
    )
    assert ids(store, Where(cells=("c1",))) == set(names[:35])
    assert ids(store, Where(cells=("c2",))) == set(names[35:38])
    assert ids(store, Where(archived=True)) == set(names[38:])
    assert ids(store, Where(outcomes=("failure",))) == {"n07"}
    assert ids(store, Where(context={"n": "23"})) == {"n23"}
    assert store.count(Where(cells=("c1", "c2"), archived=None)) == 80
    assert store.generations(["ghost"]) == {}
    moved = [PointChange(name, timestamp=NOON + timedelta(days=i), cells=("c3",)) for i, name in enumerate(names)]
    store.change(moved)
    assert ids(store, Where(since=NOON + timedelta(days=30), cells=("c3",), archived=None)) == set(names[30:])


def test_change_never_makes_a_point(store: VectorStore) -> None:
    store.upsert([point("a")])
    store.change([PointChange("ghost", dense={CONTEXT: unit(1)}, cells=("c1",)), PointChange("a", cells=("c2",))])
    assert store.generations(["ghost"]) == {}
    assert store.count() == 1
    assert store.count(Where(cells=("c2",))) == 1


def test_cells_are_set_for_every_window_and_nothing_else_is(store: VectorStore) -> None:
    store.upsert([point("a", unit(1), window=w, windows=2, outcome="failure", cells=("c1",)) for w in (0, 1)])
    store.upsert([point("b", cells=("c1",)), point("c", cells=("c1",))])
    store.set_cells(["a", "ghost", "b"], ("c2", "c3"))
    assert ids(store, Where(cells=("c2",))) == ids(store, Where(cells=("c3",))) == {"a", "b"}
    assert ids(store, Where(cells=("c1",))) == {"c"}
    assert store.count(Where(cells=("c2",), outcomes=("failure",))) == 2
    assert ranked(store, CONTENT, unit(1.0))[0][1] == pytest.approx(1.0, abs=1e-5)
    assert store.generations(["ghost"]) == {}
    store.set_cells(["a"], ())
    store.set_cells([], ("c9",))
    assert ids(store, Where(cells=("nothing",), uncelled=True)) == {"a"}
    assert store.count() == 4


# -- deleting and reading


def test_delete_counts_the_points_it_removed(store: VectorStore) -> None:
    store.upsert([point("a", window=0, windows=2), point("a", window=1, windows=2), point("b")])
    assert store.delete(["a", "nope"]) == 2
    assert store.delete(["a"]) == 0
    assert walked(store) == [("b", 0)]
    assert ids(store) == {"b"}


def test_deleted_episode_can_be_written_again(store: VectorStore) -> None:
    store.upsert([point("a", generation=5)])
    store.delete(["a"])
    store.upsert([point("a", generation=1)])
    assert store.generations(["a"]) == {"a": (1, 1)}


def test_vectors_are_the_unit_mean_of_windows_in_the_order_asked(store: VectorStore) -> None:
    store.upsert([point("a", unit(1), window=0), point("a", unit(0, 1), window=1), point("b", unit(0, 0, 1))])
    found = store.vectors(["b", "nope", "a"])
    assert [row.episode_id for row in found] == ["b", "a"]
    np.testing.assert_allclose(found[0].vector, unit(0, 0, 1), atol=1e-6)
    np.testing.assert_allclose(found[1].vector, unit(1, 1), atol=1e-6)
    assert found[1].vector.dtype == np.float32


def test_vectors_of_single_windows_are_each_episodes_own(store: VectorStore) -> None:
    store.upsert([point(f"e{i}", unit(*np.eye(4)[i % 4])) for i in range(40)])
    names = [f"e{i}" for i in range(39, 0, -3)]
    for asked in (names, [*names, "nope", *names[:5]], ["nope"]):
        found, alike = store.vectors(asked, single=True), store.vectors(asked)
        assert [row.episode_id for row in found] == [row.episode_id for row in alike]
        assert [row.episode_id for row in found] == [name for name in asked if name != "nope"]
        for row in found:
            np.testing.assert_allclose(row.vector, unit(*np.eye(4)[int(row.episode_id[1:]) % 4]), atol=1e-6)


def test_word_pieces_live_and_die_with_the_point(store: VectorStore) -> None:
    kept = bytes(range(256))
    store.upsert([point("a", pieces=kept), point("b", window=1, windows=2), point("b", pieces=b"old")])
    assert store.pieces(["a", "b", "c"]) == {"a": kept, "b": b"old"}
    assert store.pieces([]) == {}
    store.change([PointChange("a", cells=("c1",), dense={CONTEXT: unit(1)})])
    store.upsert([point("b", generation=2, pieces=b"new")])
    assert store.pieces(["a", "b"]) == {"a": kept, "b": b"new"}
    store.upsert([point("b", generation=3)])
    store.delete(["a"])
    assert store.pieces(["a", "b"]) == {}


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_walk_sees_every_point_once(store: VectorStore, limit: int) -> None:
    expected = {(f"e{i}", w) for i in range(10) for w in range(2)}
    store.upsert([point(name, window=w, windows=2) for name, w in expected])
    store.put_centroids([Centroid(f"c{i}", "s", "r", unit(1), 0.5) for i in range(5)])
    rows = walked(store, limit)
    assert len(rows) == len(expected)
    assert set(rows) == expected


# -- erasure


def test_scrub_keeps_what_was_not_deleted(store: VectorStore) -> None:
    store.upsert([point(f"e{i}", unit(1, i), cells=("c",)) for i in range(20)])
    store.put_centroids([Centroid("c1", "s", "r", unit(1), 0.1)])
    store.delete([f"e{i}" for i in range(10)])
    store.scrub()
    assert store.generations([f"e{i}" for i in range(20)]) == {f"e{i}": (1, 1) for i in range(10, 20)}
    assert len(store.centroids("s", "r")) == 1
    assert ids(store, Where(cells=("c",))) == {f"e{i}" for i in range(10, 20)}
    store.upsert([point("after")])
    assert store.count() == 11


def test_reopened_store_holds_what_was_written(quick_path: Path) -> None:
    with opened("edge-owner", quick_path) as first:
        first.ensure(MODEL)
        first.upsert([point("a", cells=("c1",))])
        first.change([PointChange("a", cells=("c2",))])
    with opened("edge-owner", quick_path) as second:
        assert second.count(Where(cells=("c2",))) == 1
        with pytest.raises(ConfigurationError, match=r"first-model.*second-model"):
            second.ensure(OTHER_MODEL)
