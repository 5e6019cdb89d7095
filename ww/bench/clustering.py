"""The time that clustering a sample takes, and what else finds clusters: the peers."""

from __future__ import annotations

import statistics
import warnings

import numpy as np
from numpy.typing import NDArray

from ww.bench.figure import Bench, Figure, wall
from ww.bench.spread import Spread
from ww_core.consolidation.clustering import cluster
from ww_core.models import Vector

SECONDS_TARGET, SAMPLED = 0.5, 2000
"""Of a sample of so many vectors."""
ROUNDS = 3
SIZE, SAMPLES = 10, 5


def time_taken(bench: Bench) -> list[Figure]:
    """2 000 vectors, beside hdbscan's default path and scikit-learn's HDBSCAN on the same rows."""
    rows = Spread(bench.scale.sampled).matrix
    cluster(rows[:200])
    own = statistics.median(wall(lambda: cluster(rows)) for _ in range(ROUNDS))
    peer, other = wall(lambda: hdbscan_default(rows)), wall(lambda: hdbscan_of_sklearn(rows))
    note = f"{len(rows):,} vectors"
    small = f"judged at {SAMPLED:,} vectors" if len(rows) < SAMPLED else ""
    return [
        Figure("consolidation_2000", own, "s", SECONDS_TARGET, peer, "hdbscan, default path", low_is_good=True,
               note=note, unjudged=small),
        Figure("consolidation_against_sklearn", own, "s", peer=other, peer_name="scikit-learn's HDBSCAN",
               low_is_good=True, note=note),
    ]  # fmt: skip


def hdbscan_default(rows: Vector) -> NDArray[np.int64]:
    """Labels (n,), -1 for noise, by hdbscan's default path on the rows as they are."""
    import hdbscan

    found = hdbscan.HDBSCAN(min_cluster_size=SIZE, min_samples=SAMPLES, core_dist_n_jobs=1)
    labels: NDArray[np.int64] = found.fit(rows.astype(np.float64)).labels_
    return labels


def hdbscan_of_sklearn(rows: Vector) -> NDArray[np.int64]:
    """The same by scikit-learn's."""
    from sklearn.cluster import HDBSCAN

    found = HDBSCAN(min_cluster_size=SIZE, min_samples=SAMPLES, copy=True)
    labels: NDArray[np.int64] = found.fit(rows.astype(np.float64)).labels_
    return labels


def umap_and_hdbscan(rows: Vector) -> NDArray[np.int64]:
    """The same as BERTopic finds topics: UMAP to 5 dimensions, then HDBSCAN."""
    import hdbscan
    import umap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed makes it use one thread
        few = umap.UMAP(n_neighbors=15, n_components=5, min_dist=0.0, metric="cosine", random_state=0).fit_transform(
            rows
        )
    found = hdbscan.HDBSCAN(min_cluster_size=SIZE, min_samples=SAMPLES, core_dist_n_jobs=1)
    labels: NDArray[np.int64] = found.fit(few.astype(np.float64)).labels_
    return labels


def with_the_rest(rows: Vector, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Noise at its nearest cluster, as ours is."""
    if labels.max() < 0:
        return labels
    means = np.stack([rows[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    return np.where(labels < 0, (rows @ means.T).argmax(axis=1), labels)
