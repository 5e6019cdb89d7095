"""What every vector store must do, on each of them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.vector_stores import (
    ADAPTERS,
    MODEL,
    NOON,
    OTHER_MODEL,
    SERVERS,
    OwnerProcess,
    opened,
    point,
    random_unit,
    unit,
    words,
)
from ww_core.errors import ConfigurationError
from ww_core.stores.ports import (
    BM25,
    BM25_CONTEXT,
    CONTENT,
    CONTEXT,
    Centroid,
    PointChange,
    Search,
    SparseVector,
    VectorStore,
    Where,
)


@pytest.fixture(scope="module")
def owner() -> Iterator[OwnerProcess]:
    process = OwnerProcess()
    yield process
    process.close()


@pytest.fixture(params=ADAPTERS)
def bare(request: pytest.FixtureRequest, quick_path: Path, owner: OwnerProcess) -> Iterator[VectorStore]:
    """A store without a collection."""
    if request.param in SERVERS and not os.environ.get("QDRANT_URL"):
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test")
    with opened(request.param, quick_path, owner) as store:
        yield store


@pytest.fixture
def store(bare: VectorStore) -> VectorStore:
    bare.ensure(MODEL)
    return bare


def ids(store: VectorStore, where: Where = Where(), *, limit: int = 100) -> set[str]:  # noqa: B008 - frozen
    """The episodes that a search in ``where`` finds."""
    return {hit.episode_id for hit in store.search([Search(CONTENT, unit(1.0), where, limit)])[0]}


def ranked(
    store: VectorStore, using: str, vector: np.ndarray | SparseVector, **more: object
) -> list[tuple[str, float]]:
    hits = store.search([Search(using, vector, **more)])[0]  # type: ignore[arg-type]
    return [(hit.episode_id, hit.score) for hit in hits]


def walked(store: VectorStore, limit: int = 1000) -> list[tuple[str, int]]:
    rows, after = store.walk(limit=limit)
    while after is not None:
        page, after = store.walk(after=after, limit=limit)
        rows += page
    return rows


# -- the collection


def test_store_without_collection_is_empty(bare: VectorStore) -> None:
    bare.ping()
    assert bare.count() == 0
    assert bare.search([Search(CONTENT, unit(1.0)), Search(BM25, words(t1=1))]) == [[], []]
    assert bare.generations(["a"]) == {}
    assert bare.vectors(["a"]) == []
    assert bare.walk() == ([], None)
    assert bare.centroids("s", "r") == []
    assert bare.delete(["a"]) == 0
    bare.drop_centroids("s", keep_runs=[])
    assert bare.info()["points"] == 0
    with pytest.raises(ConfigurationError, match="no vector collection"):
        bare.upsert([point("a")])


def test_ensuring_twice_is_harmless(store: VectorStore) -> None:
    store.upsert([point("a")])
    store.ensure(MODEL)
    assert store.count() == 1


def test_another_model_is_refused_by_name(store: VectorStore) -> None:
    with pytest.raises(ConfigurationError, match=r"first-model.*second-model"):
        store.ensure(OTHER_MODEL)


# -- ranking


def test_dense_search_ranks_by_cosine(store: VectorStore) -> None:
    store.upsert([point("far", unit(-1, 0.1)), point("near", unit(1, 0.1)), point("side", unit(1, 1))])
    found = ranked(store, CONTENT, unit(1.0), limit=10)
    assert [episode_id for episode_id, _ in found] == ["near", "side", "far"]
    for (_, score), expected in zip(
        found, (1 / math.hypot(1, 0.1), math.sqrt(0.5), -1 / math.hypot(1, 0.1)), strict=True
    ):
        assert score == pytest.approx(expected, abs=1e-5)


def test_exact_search_agrees_with_numpy(store: VectorStore) -> None:
    rng = np.random.default_rng(7)
    vectors = {f"e{i}": random_unit(rng) for i in range(60)}
    store.upsert([point(name, vector) for name, vector in vectors.items()])
    query = random_unit(rng)
    best = sorted(vectors, key=lambda name: -float(vectors[name] @ query))[:10]
    assert [name for name, _ in ranked(store, CONTENT, query, limit=10, exact=True)] == best


def test_bm25_scores_carry_the_idf_of_the_collection(store: VectorStore) -> None:
    store.upsert(
        [
            point("a", bm25=words(t1=1.0, t2=2.0)),
            point("b", bm25=words(t1=0.5)),
            point("c", bm25=words(t1=0.25, t3=1.0)),
            point("d", bm25=words(t4=1.0)),
        ]
    )

    def idf(containing: int) -> float:
        return math.log((4 - containing + 0.5) / (containing + 0.5) + 1)

    found = dict(ranked(store, BM25, words(t1=1.0, t2=1.0), limit=10))
    assert found.keys() == {"a", "b", "c"}
    assert found["a"] == pytest.approx(idf(3) * 1.0 + idf(1) * 2.0, rel=1e-4)
    assert found["b"] == pytest.approx(idf(3) * 0.5, rel=1e-4)
    assert found["c"] == pytest.approx(idf(3) * 0.25, rel=1e-4)


def test_idf_follows_deletions(store: VectorStore, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["bare"] in SERVERS:
        pytest.skip("a server counts what was deleted until its optimiser runs: see test_qdrant_server.py")
    store.upsert([point(name, bm25=words(t1=1.0)) for name in "abcd"])
    store.delete(["c", "d"])
    store.scrub()
    (score,) = {round(s, 5) for _, s in ranked(store, BM25, words(t1=1.0), limit=10)}
    assert score == pytest.approx(math.log((2 - 2 + 0.5) / (2 + 0.5) + 1), abs=1e-4)


def test_query_without_terms_finds_nothing(store: VectorStore) -> None:
    store.upsert([point("a")])
    empty = SparseVector(np.array([], np.uint32), np.array([], np.float32))
    assert store.search([Search(BM25, empty), Search(CONTENT, unit(1.0))])[0] == []


def test_point_without_terms_is_found_by_its_meaning(store: VectorStore) -> None:
    store.upsert([point("a", bm25=SparseVector(np.array([], np.uint32), np.array([], np.float32)))])
    assert ids(store) == {"a"}
    assert ranked(store, BM25, words(t1=1.0)) == []


def test_best_window_scores_and_an_episode_appears_once(store: VectorStore) -> None:
    long = [point("long", unit(1, i / 20), window=i, windows=30) for i in range(30)]
    store.upsert([*long, point("short", unit(0, 1)), point("other", unit(-1, 0.1))])
    hits = store.search([Search(CONTENT, unit(1.0), limit=3)])[0]
    assert [(hit.episode_id, hit.window) for hit in hits] == [("long", 0), ("short", 0), ("other", 0)]


def test_several_searches_answer_in_order(store: VectorStore) -> None:
    store.upsert([point("a", unit(1), bm25=words(t1=1)), point("b", unit(0, 1), bm25=words(t2=1))])
    dense, sparse, context = store.search(
        [Search(CONTENT, unit(1.0), limit=1), Search(BM25, words(t2=1)), Search(CONTEXT, unit(0, 1), limit=1)]
    )
    assert [h.episode_id for h in dense] == ["a"]
    assert [h.episode_id for h in sparse] == ["b"]
    assert [h.episode_id for h in context] == ["b"]


# -- filters


@pytest.fixture
def mixed(store: VectorStore) -> VectorStore:
    store.upsert(
        [
            point("a", session="x", minutes=0, outcome="success", context={"tool": "kubectl", "n": "1"}),
            point("b", session="x", minutes=10, outcome="failure", context={"tool": "git"}, cells=("c1",)),
            point("c", session="y", minutes=20, context={"tool": "kubectl"}, cells=("c2",)),
            point("d", session="z", minutes=30, outcome="success", archived=True),
        ]
    )
    return store


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (Where(), "abc"),
        (Where(archived=None), "abcd"),
        (Where(archived=True), "d"),
        (Where(sessions=("x",)), "ab"),
        (Where(sessions=("x", "y")), "abc"),
        (Where(sessions=("nobody",)), ""),
        (Where(since=NOON + timedelta(minutes=10)), "bc"),
        (Where(since=NOON + timedelta(minutes=10, microseconds=1)), "c"),
        (Where(until=NOON + timedelta(minutes=10)), "a"),
        (Where(until=NOON + timedelta(minutes=10, microseconds=1)), "ab"),
        (Where(since=NOON, until=NOON + timedelta(minutes=20)), "ab"),
        (Where(outcomes=("success",)), "a"),
        (Where(outcomes=("success", "failure")), "ab"),
        (Where(context={"tool": "kubectl"}), "ac"),
        (Where(context={"tool": "kubectl", "n": "1"}), "a"),
        (Where(context={"tool": "1"}), ""),
        (Where(cells=("c1",)), "b"),
        (Where(cells=("c1", "c2")), "bc"),
        (Where(cells=("c1",), uncelled=True), "ab"),
        (Where(cells=("c9",), uncelled=True, sessions=("x",)), "a"),
        (Where(episode_ids=("a", "c", "nope")), "ac"),
        (Where(episode_ids=("a", "d"), archived=None), "ad"),
        (Where(sessions=("x",), outcomes=("success",), context={"n": "1"}), "a"),
    ],
)
def test_filter(mixed: VectorStore, where: Where, expected: str) -> None:
    assert ids(mixed, where) == set(expected)
    assert mixed.count(where) == len(expected)
    found = mixed.search([Search(BM25, words(t1=1.0), where, 10)])[0]
    assert {hit.episode_id for hit in found} == set(expected)


def test_context_terms_do_not_run_into_each_other(store: VectorStore) -> None:
    store.upsert([point("a", context={"k": "v=w"}), point("b", context={"k=v": "w"}), point("c", context={"k": ""})])
    assert ids(store, Where(context={"k": "v=w"})) == {"a"}
    assert ids(store, Where(context={"k=v": "w"})) == {"b"}
    assert ids(store, Where(context={"k": ""})) == {"c"}


def test_microseconds_of_far_times_are_told_apart(store: VectorStore) -> None:
    far = timedelta(days=365 * 1000)
    store.upsert([point("a", minutes=far / timedelta(minutes=1)), point("b")])
    when = NOON + timedelta(minutes=far / timedelta(minutes=1))
    assert ids(store, Where(since=when)) == {"a"}
    assert ids(store, Where(since=when + timedelta(microseconds=1))) == set()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sessions=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=8),
    asked=st.integers(0, 7),
    limit=st.integers(1, 20),
)
def test_session_filter_never_leaks(store: VectorStore, sessions: list[str], asked: int, limit: int) -> None:
    held = {f"{index}": session for index, session in enumerate(sessions)}
    store.delete([str(index) for index in range(8)])
    store.upsert([point(key, session=session) for key, session in held.items()])
    session = sessions[asked % len(sessions)]
    expected = {key for key, name in held.items() if name == session}
    found = ids(store, Where(sessions=(session,)), limit=limit)
    assert found <= expected
    assert len(found) == min(limit, len(expected))


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


def test_an_estimate_tells_a_wide_filter_from_a_narrow_one(store: VectorStore) -> None:
    store.upsert([point(f"e{i}", minutes=60 * i) for i in range(50)])
    wide, narrow = Where(until=NOON + timedelta(hours=45)), Where(until=NOON + timedelta(hours=5))
    assert store.count(wide, exact=False) >= 2 * store.count(narrow, exact=False)
    assert store.count(narrow) == 5


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


def test_change_never_makes_a_point(store: VectorStore) -> None:
    store.upsert([point("a")])
    store.change([PointChange("ghost", dense={CONTEXT: unit(1)}, cells=("c1",)), PointChange("a", cells=("c2",))])
    assert store.generations(["ghost"]) == {}
    assert store.count() == 1
    assert store.count(Where(cells=("c2",))) == 1


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


# -- centroids


def test_centroids_belong_to_their_session_and_run(store: VectorStore) -> None:
    store.upsert([point("a")])
    store.put_centroids(
        [
            Centroid("c2", "s", "r1", unit(0, 1), 0.2),
            Centroid("c1", "s", "r1", unit(1), 0.1),
            Centroid("c1", "s", "r2", unit(0, 0, 1), 0.3),
            Centroid("c1", "t", "r1", unit(1), 0.4),
        ]
    )
    found = store.centroids("s", "r1")
    assert [(c.cluster_id, c.session_id, c.run_id, c.radius) for c in found] == [
        ("c1", "s", "r1", pytest.approx(0.1)),
        ("c2", "s", "r1", pytest.approx(0.2)),
    ]
    np.testing.assert_allclose(found[1].vector, unit(0, 1), atol=1e-6)
    store.drop_centroids("s", keep_runs=["r2"])
    assert store.centroids("s", "r1") == []
    assert len(store.centroids("s", "r2")) == 1
    assert len(store.centroids("t", "r1")) == 1
    store.drop_centroids("s", keep_runs=[])
    assert store.centroids("s", "r2") == []


def test_centroids_are_walked_and_dropped_by_run(store: VectorStore) -> None:
    assert store.walk_centroids() == ([], None)
    store.upsert([point(f"e{i}") for i in range(5)])
    runs = [f"r{i % 3}" for i in range(10)]
    store.put_centroids([Centroid(f"c{i}", f"s{i % 2}", run, unit(1), 0.1) for i, run in enumerate(runs)])
    seen, after = store.walk_centroids(limit=4)
    assert len(seen) == 4
    while after is not None:
        more, after = store.walk_centroids(after=after, limit=4)
        seen += more
    assert sorted(seen) == sorted(runs)
    store.drop_runs([])
    store.drop_runs(["r0", "r2", "nobody's"])
    assert store.walk_centroids() == (["r1"] * 3, None)
    assert store.count() == 5


def test_centroids_are_no_episodes(store: VectorStore) -> None:
    store.put_centroids([Centroid("c1", "s", "r", unit(1), 0.1)])
    assert store.count() == 0
    assert store.count(Where(sessions=("s",))) == 0
    assert store.count(Where(archived=None)) == 0
    assert ids(store, Where(archived=None)) == set()
    assert walked(store) == []
    assert store.info()["points"] == 0


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


# -- archived points have a place of their own

ARCHIVED = Where(archived=True)
EVERYTHING = Where(archived=None)


def in_the_cold(store: VectorStore) -> int:
    """Points in the cold collection."""
    return int(store.info().get("cold", {}).get("points", 0))


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
    assert in_the_cold(faded) == 2
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
    assert in_the_cold(faded) == 0
    assert ids(faded) == {"old", "new"}
    assert ids(faded, ARCHIVED) == set()
    assert faded.pieces(["old"]) == {"old": b"pieces"}


def test_changes_reach_archived_points(faded: VectorStore) -> None:
    faded.change([PointChange("old", dense={CONTEXT: unit(0, 0, 1.0)}, outcome="failure")])
    assert ids(faded, Where(archived=True, outcomes=("failure",))) == {"old"}
    assert in_the_cold(faded) == 2


def test_late_writer_does_not_bring_an_archived_episode_back_twice(faded: VectorStore) -> None:
    faded.upsert([point("old", unit(0, 0, 1.0), generation=1)])
    assert faded.generations(["old"]) == {"old": (1, 2)}
    assert in_the_cold(faded) == 2
    faded.upsert([point("old", unit(0, 0, 1.0), generation=2)])
    assert faded.generations(["old"]) == {"old": (2, 1)}
    assert in_the_cold(faded) == 0
    faded.upsert([point("old", unit(0, 0, 1.0), generation=3, archived=True)])
    assert faded.generations(["old"]) == {"old": (3, 1)}
    assert sorted(walked(faded)) == [("new", 0), ("old", 0)]
    assert in_the_cold(faded) == 1


def test_erasure_reaches_archived_points(faded: VectorStore) -> None:
    assert faded.delete(["old", "new", "absent"]) == 3
    assert faded.count() == 0
    assert walked(faded) == []
