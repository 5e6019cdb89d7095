"""Finding the clusters of a sample: sharpen the vectors with their neighbours, HDBSCAN, merge what flows together.

Notes
-----
Each step is there for what it measurably adds (adjusted Rand index on two labelled sets of short texts, one setting for
both): HDBSCAN on raw vectors .51 and .59; on principal directions drawn together along their nearest-neighbour graph
.53 and .73; with clusters merged between which the graph's random walk flows .58 and .73.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ww_core.consolidation.density import density_clusters
from ww_core.consolidation.neighbours import Graph, flow_between, principal_directions, smooth, unit
from ww_core.consolidation.progress import unwatched
from ww_core.models import Vector

DIMENSIONS = 128
"""Principal directions kept: the rest is mostly noise to neighbour search."""
NEIGHBOURS = 15
SMOOTHING_ROUNDS = 2
"""Each with a graph of its own; more of them break clusters apart."""
STEPS_PER_ROUND = 2
SMOOTHING_SHARE = 0.7
MERGING_FLOW = 0.10
"""Share of a random walk's steps between two clusters above which they are one."""
CLOSE_NEIGHBOURS = 5
"""Neighbours whose mean cosine is a row's density."""
LOOSE = 0.8
"""Of the median density: a row below it belongs to nothing (on CLINC150 that leaves 61% of the queries that are out of
scope and 13% of the others without a cluster)."""
THIN = 0.5
"""Of the median density: a cluster below it on average is no topic, only where the noise is thickest."""
SMALLEST, FEWEST = 5, 3
"""min_cluster_size and min_samples of small samples."""


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
    return round(SMALLEST + 5 * min(growth, 2.0)), round(FEWEST + 2 * min(growth, 1.0))


def cluster(
    vectors: Vector,
    *,
    core: NDArray[np.bool_] | None = None,
    min_cluster_size: int | Literal["auto"] = "auto",
    min_samples: int | Literal["auto"] = "auto",
    step: Callable[[], None] = unwatched,
) -> Clustering:
    """Cluster unit rows (n, d), float32. The same rows in the same order give the same answer.

    HDBSCAN, the costly part, sees only the rows of ``core`` (n,), by default all. The others help to sharpen them,
    which is worth far more than their absence saves, and go to the nearest cluster. ``step`` is called every second or
    so of work; what it raises ends the work there.
    """
    n = len(vectors)
    core = np.ones(n, dtype=np.bool_) if core is None else core
    size, samples = _sizes(n, int(core.sum()), min_cluster_size, min_samples)
    if core.sum() < 2 * size:
        nothing = np.full(n, -1, dtype=np.int32)
        return Clustering(nothing, nothing)
    points = principal_directions(vectors, DIMENSIONS)
    first = graph = Graph.of(points, NEIGHBOURS, step)
    for further in range(SMOOTHING_ROUNDS):
        if further:
            graph = Graph.of(points, NEIGHBOURS, step)
        points = smooth(points, graph.transitions, share=SMOOTHING_SHARE, times=STEPS_PER_ROUND)
    labels = np.full(n, -1, dtype=np.int32)
    labels[core] = density_clusters(points[core], min_cluster_size=size, min_samples=samples, step=step)
    if labels.max() < 0:
        return Clustering(labels, labels)
    likely = labels >= 0
    labels[~core] = _nearest(points[~core], points, labels)
    likely[~core] = True
    labels = _merged(np.where(likely, labels, -1).astype(np.int32), first)
    nearest = np.where(likely, labels, _nearest(points, points, labels))
    member = _belongs(nearest, likely, first, smallest=size)
    return _numbered(np.where(member, nearest, -1).astype(np.int32), nearest, points)


def centroids(vectors: Vector, labels: NDArray[np.int32]) -> Vector:
    """Unit mean (k, d) of the rows (n, d) of each label from 0 to k - 1; other labels are left out."""
    inside = labels >= 0
    sums = np.zeros((int(labels.max(initial=-1)) + 1, vectors.shape[1]), dtype=np.float64)
    np.add.at(sums, labels[inside], vectors[inside])
    return unit(sums.astype(np.float32))


def _sizes(n: int, core: int, size: int | Literal["auto"], samples: int | Literal["auto"]) -> tuple[int, int]:
    # Of a cluster of m rows about m * core / n are in the core.
    auto_size, auto_samples = (value * core / max(n, 1) for value in auto_sizes(n))
    return (
        max(SMALLEST, round(auto_size)) if size == "auto" else size,
        max(FEWEST, round(auto_samples)) if samples == "auto" else samples,
    )


def _nearest(rows: Vector, points: Vector, labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The cluster of the labelled points whose centroid is nearest to each row."""
    return np.asarray((rows @ centroids(points, labels).T).argmax(axis=1), dtype=np.int32)


def _merged(labels: NDArray[np.int32], graph: Graph) -> NDArray[np.int32]:
    while labels.max() >= 1:
        flow = flow_between(labels, graph.transitions)
        np.fill_diagonal(flow, 0.0)
        one, other = sorted(np.unravel_index(int(flow.argmax()), flow.shape))
        if flow[one, other] <= MERGING_FLOW:
            break
        labels = np.where(labels == other, one, labels)
        labels = np.where(labels > other, labels - 1, labels).astype(np.int32)
    return labels


def _belongs(
    nearest: NDArray[np.int32], likely: NDArray[np.bool_], graph: Graph, *, smallest: int
) -> NDArray[np.bool_]:
    """Which rows are members of their nearest cluster: the likely ones, and those whose closest neighbours mostly are
    likely members of it; but none that lies loosely. A cluster that is thin all over has no members."""
    close = graph.neighbours[:, :CLOSE_NEIGHBOURS]
    among = ((nearest[close] == nearest[:, None]) & likely[close]).mean(axis=1) > 0.5
    density = graph.cosines[:, :CLOSE_NEIGHBOURS].mean(axis=1)
    tight = density >= LOOSE * np.median(density)
    count = int(nearest.max()) + 1
    of_likely = np.bincount(nearest[likely], minlength=count)
    of_tight = np.bincount(nearest[likely & tight], minlength=count)
    mean = np.bincount(nearest[likely], density[likely], minlength=count) / np.maximum(of_likely, 1)
    sound = mean >= THIN * np.median(density)
    # A cluster keeps its loose members where it would be too small without them.
    spare = of_tight >= smallest
    return np.asarray((likely | among) & sound[nearest] & (tight | (likely & ~spare[nearest])))


def _numbered(labels: NDArray[np.int32], nearest: NDArray[np.int32], points: Vector) -> Clustering:
    """Number the clusters that have members by size, and find the nearest of them for the rows of the others."""
    sizes = np.bincount(labels[labels >= 0], minlength=int(nearest.max()) + 1)
    kept = int((sizes > 0).sum())
    rank = np.full(len(sizes) + 1, -1, dtype=np.int32)
    rank[np.argsort(-sizes, kind="stable")[:kept]] = np.arange(kept)
    labels, nearest = rank[labels], rank[nearest]
    if kept:
        nearest = np.where(nearest < 0, _nearest(points, points, labels), nearest).astype(np.int32)
    return Clustering(labels, nearest)
