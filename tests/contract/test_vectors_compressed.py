"""Searches that read compressed vectors first, and filters that are applied to what was found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.contract.vector_stores import point
from ww_core.errors import StoreUnavailable
from ww_core.stores.embedded.vectors import engine, shard
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, Fingerprint, Search, Where

SIZE, DIMENSION = 3000, 64


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """float32 (SIZE, DIMENSION), unit rows, in 40 groups."""
    rng = np.random.default_rng(11)
    centres = rng.standard_normal((40, DIMENSION))
    rows = (centres[rng.integers(0, 40, SIZE)] + rng.standard_normal((SIZE, DIMENSION))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def filled(quick_path: Path, vectors: np.ndarray) -> Iterator[Shard]:
    """Nine of ten points in session ``main``, every twentieth archived."""
    store = Shard(quick_path, namespace="ww")
    store.ensure(Fingerprint("m", "1", DIMENSION, "mean", True))
    rows = [
        point(str(i), v, session="side" if i % 10 == 0 else "main", archived=i % 20 == 1, cells=(f"c{i % 30}",))
        for i, v in enumerate(vectors)
    ]
    for start in range(0, SIZE, 500):
        store.upsert(rows[start : start + 500])
    yield store
    store.close()


def test_compressed_search_finds_what_an_exact_one_does(
    filled: Shard, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMPRESSED_FROM", 0)
    found = expected = 0
    for query in vectors[:100:5]:
        compressed, exact = filled.search(
            [Search(CONTENT, query, limit=20), Search(CONTENT, query, limit=20, exact=True)]
        )
        truth = {hit.episode_id: hit.score for hit in exact}
        found += len({hit.episode_id for hit in compressed} & truth.keys())
        expected += len(truth)
        for hit in compressed:
            assert hit.score == pytest.approx(float(vectors[int(hit.episode_id)] @ query), abs=1e-4), "rescored"
    assert found / expected >= 0.99


@pytest.mark.parametrize(
    "where",
    [
        Where(),
        Where(sessions=("main",)),
        Where(sessions=("side",)),
        Where(sessions=("main", "side"), archived=None),
        Where(sessions=("main",), outcomes=("success",), archived=None),
        Where(sessions=("main",), cells=("c3", "c4"), uncelled=True),
    ],
)
def test_filtering_before_and_after_give_the_same(
    filled: Shard, vectors: np.ndarray, where: Where, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = [Search(CONTENT, query, where, limit=30, exact=True) for query in vectors[:5]]
    answers = []
    for most in (0.01, 0.5, 2.0):
        monkeypatch.setattr(shard, "MOST", most)
        answers.append([[hit.episode_id for hit in hits] for hits in filled.search(searches)])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("IO Error: No space left on device (os error 28)", "no space left"),
        ("IO Error: Read-only file system (os error 30)", "read-only"),
        ("something\n  odd", "something odd"),
    ],
)
def test_failure_of_the_disk_is_said_in_one_line(reason: str, said: str) -> None:
    with pytest.raises(StoreUnavailable, match=said) as caught, engine.translated("writing points"):
        raise Exception(reason)
    assert "\n" not in str(caught.value)


def test_named_episodes_have_compressed_scores_where_they_need_not_be_exact(
    filled: Shard, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMPRESSED_FROM", 0)
    names = Where(episode_ids=tuple(str(i) for i in range(0, SIZE, 30)))
    query = vectors[0]
    about, exact = filled.search([Search(CONTENT, query, names, limit=SIZE, exact=exact) for exact in (False, True)])
    true = {name: float(vectors[int(name)] @ query) for name in names.episode_ids}
    assert {hit.episode_id: hit.score for hit in exact} == pytest.approx(true, abs=1e-4)
    errors = np.array([hit.score - true[hit.episode_id] for hit in about])
    assert len(errors) == len(true)
    assert 0 < np.abs(errors).max() < 0.06
