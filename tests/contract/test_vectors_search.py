"""What a vector store finds: how it ranks, what filters leave, and what it counts, on each store."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.vector_stores import NOON, SERVERS, ids, point, random_unit, ranked, unit, words
from ww_core.stores.ports import BM25, CONTENT, CONTEXT, Search, SparseVector, VectorStore, Where

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


def test_named_episodes_are_found_by_their_best_window(store: VectorStore) -> None:
    long = [point("long", unit(1, i / 20), window=i, windows=30) for i in range(30)]
    store.upsert([*long, point("short", unit(0, 1)), point("archived", unit(0, 1), archived=True), point("other")])
    where = Where(episode_ids=("short", "long", "archived", "nobody"), archived=False)
    for exact in (True, False):
        (hits,) = store.search([Search(CONTENT, unit(0.5, 0.725), where, limit=4, exact=exact)])
        assert [(hit.episode_id, hit.window) for hit in hits] == [("long", 29), ("short", 0)]


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


def test_an_estimate_tells_a_wide_filter_from_a_narrow_one(store: VectorStore) -> None:
    store.upsert([point(f"e{i}", minutes=60 * i) for i in range(50)])
    wide, narrow = Where(until=NOON + timedelta(hours=45)), Where(until=NOON + timedelta(hours=5))
    assert store.count(wide, exact=False) >= 2 * store.count(narrow, exact=False)
    assert store.count(narrow) == 5
