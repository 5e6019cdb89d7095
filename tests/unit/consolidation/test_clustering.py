"""The clustering of a sample."""

from __future__ import annotations

import time
from collections.abc import Callable

import hdbscan
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from tests.unit.consolidation.blobs import blobs
from ww_core.consolidation import density, neighbours
from ww_core.consolidation.clustering import auto_sizes, centroids, cluster
from ww_core.consolidation.density import density_clusters, spanning_tree
from ww_core.consolidation.duplicates import Texts, fold
from ww_core.consolidation.neighbours import Graph


def test_well_separated_groups_are_found() -> None:
    rows, truth = blobs(6, 40)
    found = cluster(rows)
    assert found.count == 6
    assert adjusted_rand_score(truth, found.labels) == 1.0


def test_the_same_rows_give_the_same_answer() -> None:
    rows, _ = blobs(8, 30, noise=60, spread=0.6)
    one, other = cluster(rows), cluster(rows.copy())
    assert np.array_equal(one.labels, other.labels)
    assert np.array_equal(one.nearest, other.nearest)


def test_labels_count_from_the_largest_cluster() -> None:
    big, _ = blobs(1, 60, seed=1)
    small, _ = blobs(1, 20, seed=2)
    found = cluster(np.vstack([small, big]))
    sizes = np.bincount(found.labels[found.labels >= 0])
    assert list(sizes) == sorted(sizes, reverse=True)


def test_every_row_has_a_nearest_cluster_and_members_their_own() -> None:
    rows, _ = blobs(5, 40, noise=50)
    found = cluster(rows)
    assert (found.nearest >= 0).all()
    inside = found.labels >= 0
    assert np.array_equal(found.nearest[inside], found.labels[inside])


def test_scattered_rows_are_left_out() -> None:
    rows, truth = blobs(5, 40, noise=40)
    found = cluster(rows)
    assert (found.labels[truth < 0] < 0).mean() > 2 * (found.labels[truth >= 0] < 0).mean()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 9, 10, 14, 20, 50])
def test_small_inputs_are_answered(n: int) -> None:
    rows, _ = blobs(2, 25)
    found = cluster(rows[:n])
    assert found.labels.shape == found.nearest.shape == (n,)


def test_three_topics_of_seven_are_found() -> None:
    rows, truth = blobs(3, 7)
    assert adjusted_rand_score(truth, cluster(rows).nearest) == 1.0


def test_identical_rows_do_not_break_it() -> None:
    one, other = blobs(2, 1)[0]
    found = cluster(np.vstack([np.tile(one, (20, 1)), np.tile(other, (20, 1))]))
    assert found.count == 2


def test_min_cluster_size_is_respected() -> None:
    rows, _ = blobs(8, 12)
    assert cluster(rows, min_cluster_size=5).count == 8
    large = cluster(rows, min_cluster_size=20)
    assert all(np.bincount(large.labels[large.labels >= 0]) >= 20) if large.count else True


def test_min_samples_is_respected() -> None:
    rows, _ = blobs(6, 20, noise=60, spread=0.7)
    few, many = cluster(rows, min_samples=1), cluster(rows, min_samples=15)
    assert not np.array_equal(few.labels, many.labels)


def test_automatic_sizes_grow_gently() -> None:
    assert auto_sizes(20) == auto_sizes(100) == (5, 3)
    assert auto_sizes(3000) == (10, 5)
    sizes = [auto_sizes(n)[0] for n in (10, 100, 500, 1000, 3000, 10_000, 100_000)]
    assert sizes == sorted(sizes)
    assert sizes[-1] <= 15


def test_density_clusters_are_those_of_the_hdbscan_library() -> None:
    rows, _ = blobs(7, 40, noise=80, spread=0.6)
    own = density_clusters(rows, min_cluster_size=10, min_samples=5)
    library = hdbscan.HDBSCAN(min_cluster_size=10, min_samples=5, core_dist_n_jobs=1, algorithm="generic")
    theirs = library.fit_predict(rows.astype(np.float64))
    assert adjusted_rand_score(own, theirs) > 0.99


def test_both_ways_to_a_spanning_tree_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = blobs(5, 50, noise=33, spread=0.8)
    prim = spanning_tree(rows, min_samples=4)
    monkeypatch.setattr(density, "DENSE_LIMIT", 10)
    monkeypatch.setattr(density, "BLOCK", 37)
    boruvka = spanning_tree(rows, min_samples=4)
    assert len(prim[2]) == len(boruvka[2]) == len(rows) - 1
    np.testing.assert_allclose(np.sort(prim[2]), np.sort(boruvka[2]), atol=1e-5)


def test_blocks_do_not_change_the_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = blobs(5, 200, noise=37, spread=0.8)
    rows[100:130] = rows[100]  # more copies than neighbours
    distances, _ = NearestNeighbors(n_neighbors=15, algorithm="brute").fit(rows).kneighbors()
    monkeypatch.setattr(neighbours, "COMPARED", 1)
    graph = Graph.of(rows, 15)
    np.testing.assert_array_equal(graph.cosines, (1.0 - distances**2 / 2.0).astype(np.float32))
    assert not (graph.neighbours == np.arange(len(rows))[:, None]).any()


class _Enough(Exception):
    pass


def _everything(step: Callable[[], None]) -> None:
    """The arithmetic of a run over more rows than fit one block, and more than Prim's algorithm walks."""
    rows, _ = blobs(70, 100, dimension=384, spread=1.0)
    cluster(rows, step=step)
    fold(rows, Texts.of(map(str, range(len(rows)))), threshold=0.9, step=step)


def test_work_looks_every_second_whether_to_go_on() -> None:
    calculated = [time.process_time()]
    _everything(lambda: calculated.append(time.process_time()))
    calculated.append(time.process_time())
    assert max(np.diff(calculated)) < 2.0
    assert calculated[-1] - calculated[0] > 2.0


def test_work_ends_where_it_is_told_to() -> None:
    left = iter(range(20))

    def step() -> None:
        if next(left, None) is None:
            raise _Enough

    with pytest.raises(_Enough):
        _everything(step)


def test_centroids_are_unit_means() -> None:
    rows, _ = blobs(2, 10)
    labels = np.array([0] * 10 + [-1] * 5 + [1] * 5, dtype=np.int32)
    means = centroids(rows, labels)
    np.testing.assert_allclose(np.linalg.norm(means, axis=1), 1.0, atol=1e-6)
    expected = rows[:10].mean(axis=0)
    np.testing.assert_allclose(means[0], expected / np.linalg.norm(expected), atol=1e-5)
