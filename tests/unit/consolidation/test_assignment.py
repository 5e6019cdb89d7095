"""Assignment by centroid and radius, and the figures that follow the members."""

from __future__ import annotations

import numpy as np

from tests.unit.consolidation.blobs import blobs
from ww_core.consolidation.assignment import Tally, assign, has_drifted, radius
from ww_core.consolidation.clustering import centroids


def test_rows_go_to_the_nearest_centroid_within_its_radius() -> None:
    at = np.eye(3, dtype=np.float32)
    row = np.array([[0.9, np.sqrt(1 - 0.81), 0.0]], dtype=np.float32)
    near = assign(row, at, np.array([0.11, 1, 1], np.float32))
    assert (near.nearest[0], near.inside[0]) == (0, True)
    far = assign(row, at, np.array([0.09, 1, 1], np.float32))
    assert (far.nearest[0], far.inside[0]) == (0, False)
    np.testing.assert_allclose(far.distance, [0.1], atol=1e-6)


def test_without_clusters_nothing_is_near() -> None:
    result = assign(np.eye(2, dtype=np.float32), np.empty((0, 2), np.float32), np.empty(0, np.float32))
    assert list(result.nearest) == [-1, -1]
    assert not result.inside.any()


def test_the_radius_leaves_the_outermost_members_out() -> None:
    distances = np.linspace(0, 1, 101).astype(np.float32)
    assert 0.9 < radius(distances) < 1.0
    assert radius(distances, 0.1) < radius(distances) < radius(distances, 2.0)
    assert radius(np.empty(0, np.float32)) == 0.0


def test_a_centroid_that_grows_member_by_member_is_the_mean_of_all() -> None:
    rows, labels = blobs(3, 50)
    first, later = rows[:80], rows[80:]
    start = centroids(first, labels[:80])
    cohesion = np.array([(first[labels[:80] == k] @ start[k]).mean() for k in range(3)], np.float32)
    tally = Tally(start, np.bincount(labels[:80]), cohesion)
    for chunk in np.array_split(np.arange(len(later)), 7):
        tally.take_in(later[chunk], labels[80:][chunk])
    whole = centroids(rows, labels)
    np.testing.assert_allclose(tally.centroids(), whole, atol=1e-5)
    assert list(tally.sizes) == [50, 50, 50]
    expected = [(rows[labels == k] @ whole[k]).mean() for k in range(3)]
    np.testing.assert_allclose(tally.cohesion(), expected, atol=1e-5)


def test_a_cluster_that_lets_go_starts_anew() -> None:
    rows, labels = blobs(2, 10)
    tally = Tally(np.eye(64, dtype=np.float32)[:2], np.array([100, 100]), np.array([1, 1], np.float32))
    tally.let_go(0)
    tally.take_in(rows[labels == 0], labels[labels == 0])
    assert tally.sizes[0] == 10
    np.testing.assert_allclose(tally.centroids()[0], centroids(rows, labels)[0], atol=1e-5)


def test_a_few_strays_are_no_drift_and_many_are() -> None:
    assert not has_drifted(5, 10)
    assert not has_drifted(50, 10_000)
    assert has_drifted(30, 100)
    assert has_drifted(3000, 10_000)


def test_members_are_added_one_by_one_in_their_order() -> None:
    rng = np.random.default_rng(7)
    rows = rng.standard_normal((300, 16)).astype(np.float32)
    joins = rng.integers(0, 5, 300).astype(np.int32)
    tally = Tally(np.zeros((6, 16), np.float32), np.zeros(6, np.int64), np.zeros(6, np.float32))
    sums = np.zeros((6, 16))
    for start in range(0, 300, 100):
        part = np.zeros((6, 16))
        for row, cluster in zip(rows[start : start + 100], joins[start : start + 100], strict=True):
            part[cluster] += row
        sums += part
        tally.take_in(rows[start : start + 100], joins[start : start + 100])
    assert tally._sums.tobytes() == sums.tobytes()
    assert tally.sizes.tolist() == [*np.bincount(joins).tolist(), 0]
    tally.turn_away(joins)
    assert tally.strays.tolist() == tally.sizes.tolist()
