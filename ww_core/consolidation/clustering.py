"""Finding the clusters of a sample: sharpen the vectors with their neighbours, HDBSCAN, merge what flows together."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ww_core.consolidation.density import density_clusters
from ww_core.consolidation.neighbours import flow_between, principal_directions, smooth, transition_matrix, unit
from ww_core.models import Vector

DIMENSIONS = 96
"""Principal directions kept: the rest is mostly noise to neighbour search."""
NEIGHBOURS = 15
SMOOTHING_ROUNDS = 2
"""Each with a graph of its own; more of them break clusters apart."""
STEPS_PER_ROUND = 2
SMOOTHING_SHARE = 0.7
MERGING_FLOW = 0.12
"""Share of a random walk's steps between two clusters above which they are one."""


@dataclass(frozen=True, slots=True)
class Clustering:
    """What was found in a sample of n rows."""

    labels: NDArray[np.int32]
    """(n,) from 0 in order of size, largest first; -1 for rows that belong to no cluster."""
    nearest: NDArray[np.int32]
    """(n,) as ``labels``, with the nearest cluster where a row belongs to none; -1 only where there is no cluster."""

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max(initial=-1)) + 1


def auto_sizes(n: int) -> tuple[int, int]:
    """(min_cluster_size, min_samples) for a sample of ``n``: 5 and 3 up to 100, about 10 and 5 at 3 000."""
    growth = max(log(max(n, 1) / 100.0) / log(30.0), 0.0)
    return round(5 + 5 * min(growth, 2.0)), round(3 + 2 * min(growth, 1.0))


def cluster(
    vectors: Vector,
    *,
    min_cluster_size: int | Literal["auto"] = "auto",
    min_samples: int | Literal["auto"] = "auto",
) -> Clustering:
    """Cluster unit rows (n, d), float32. The same rows in the same order give the same answer."""
    n = len(vectors)
    auto_size, auto_samples = auto_sizes(n)
    size = auto_size if min_cluster_size == "auto" else min_cluster_size
    samples = auto_samples if min_samples == "auto" else min_samples
    if n < 2 * size:
        nothing = np.full(n, -1, dtype=np.int32)
        return Clustering(nothing, nothing)
    points = principal_directions(vectors, DIMENSIONS)
    first = transitions = transition_matrix(points, NEIGHBOURS)
    for step in range(SMOOTHING_ROUNDS):
        if step:
            transitions = transition_matrix(points, NEIGHBOURS)
        points = smooth(points, transitions, share=SMOOTHING_SHARE, times=STEPS_PER_ROUND)
    labels = density_clusters(points, min_cluster_size=size, min_samples=samples)
    labels = _by_size(_merged(labels, first))
    return Clustering(labels, _with_nearest(points, labels))


def centroids(vectors: Vector, labels: NDArray[np.int32]) -> Vector:
    """Unit mean (k, d) of the rows (n, d) of each label from 0 to k - 1; other labels are left out."""
    inside = labels >= 0
    sums = np.zeros((int(labels.max(initial=-1)) + 1, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, labels[inside], vectors[inside])
    return unit(sums.astype(np.float32))


def _merged(labels: NDArray[np.int32], transitions: object) -> NDArray[np.int32]:
    while labels.max(initial=-1) >= 1:
        flow = flow_between(labels, transitions)  # type: ignore[arg-type]
        np.fill_diagonal(flow, 0.0)
        one, other = sorted(np.unravel_index(int(flow.argmax()), flow.shape))
        if flow[one, other] <= MERGING_FLOW:
            break
        labels = np.where(labels == other, one, labels)
        labels = np.where(labels > other, labels - 1, labels).astype(np.int32)
    return labels


def _by_size(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    sizes = np.bincount(labels[labels >= 0])
    rank = np.empty(len(sizes) + 1, dtype=np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    rank[-1] = -1
    return rank[labels]


def _with_nearest(points: Vector, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    outside = np.flatnonzero(labels < 0)
    if not len(outside) or labels.max(initial=-1) < 0:
        return labels
    nearest = labels.copy()
    nearest[outside] = (points[outside] @ centroids(points, labels).T).argmax(axis=1)
    return nearest
