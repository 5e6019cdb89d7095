"""Centroids belong to a session and a run, and are no episodes, on each vector store."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contract.vector_stores import ids, point, unit, walked
from ww_core.stores.ports import Centroid, VectorStore, Where


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
    assert [(c.cluster_id, c.session_id, c.attempt, c.radius) for c in found] == [
        ("c1", "s", "r1", pytest.approx(0.1)),
        ("c2", "s", "r1", pytest.approx(0.2)),
    ]
    np.testing.assert_allclose(found[1].vector, unit(0, 1), atol=1e-6)
    store.drop_centroids("s", keep=["r2"])
    assert store.centroids("s", "r1") == []
    assert len(store.centroids("s", "r2")) == 1
    assert len(store.centroids("t", "r1")) == 1
    store.drop_centroids("s", keep=[])
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
    store.drop_attempts([])
    store.drop_attempts(["r0", "r2", "nobody's"])
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
