"""The nearest-neighbour graph of a sample, and what it is good for: drawing neighbours together and measuring flow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from ww_core.consolidation.progress import unwatched
from ww_core.models import Vector

CHUNK = 256
"""Rows that scikit-learn compares at a time: blocks of whole chunks are what it would have made of all rows."""
COMPARED = 2**26
"""Pairs of rows compared between two looks at whether to go on, a second of work."""


def unit(rows: Vector) -> Vector:
    """Rows (n, d) scaled to length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: Vector = (rows / np.maximum(lengths, 1e-12)).astype(np.float32, copy=False)
    return scaled


def principal_directions(vectors: Vector, dimensions: int) -> Vector:
    """The centred vectors (n, d) on their first principal directions, as unit rows (n, min(dimensions, d)).

    The eigenvectors' signs are free, but no distance or angle depends on them.
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    if len(centred) < centred.shape[1]:
        # The same from the smaller of the two products: scores are the left singular vectors times the values.
        squares, left = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        scores = left * np.sqrt(np.maximum(squares, 0.0))
        return unit(scores[:, ::-1][:, :dimensions].astype(np.float32))
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    return unit(centred @ directions[:, ::-1][:, :dimensions].astype(np.float32))


@dataclass(frozen=True, slots=True)
class Graph:
    """The cosine kNN graph of n rows."""

    neighbours: NDArray[np.int64]
    """(n, k) nearest first, the row itself not among them; k is at most n - 1."""
    cosines: Vector
    """(n, k) to them."""
    transitions: sparse.csr_matrix
    """Where a random walk steps: (n, n) float32, rows summing to 1. An edge weighs the cosine of its ends, twice where
    both name each other: mutual neighbours matter more."""

    @classmethod
    def of(cls, vectors: Vector, neighbours: int, step: Callable[[], None] = unwatched) -> Graph:
        """Of unit rows (n, d), n at least 2. ``step`` is called every second or so of work, and may raise."""
        n = len(vectors)
        k = min(neighbours, n - 1)
        distances, indices = _nearest_others(vectors, k, step)
        cosines = (1.0 - distances**2 / 2.0).astype(np.float32)
        # Opposite and unrelated neighbours keep a sliver of weight, so that no row is empty.
        weights = np.maximum(cosines, 1e-6)
        directed = sparse.csr_matrix((weights.ravel(), indices.ravel(), np.arange(0, n * k + 1, k)), shape=(n, n))
        both = directed + directed.T
        scale = 1.0 / np.asarray(both.sum(axis=1), dtype=np.float32).ravel()
        return cls(indices, cosines, sparse.csr_matrix(sparse.diags(scale, dtype=np.float32) @ both))


def _nearest_others(vectors: Vector, k: int, step: Callable[[], None]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distances (n, k) to the ``k`` nearest other rows of (n, d), and which those are, (n, k)."""
    n = len(vectors)
    model = NearestNeighbors(n_neighbors=k + 1, algorithm="brute").fit(vectors)
    block = max(COMPARED // n // CHUNK, 1) * CHUNK
    found = []
    for start in range(0, n, block):
        step()
        distances, indices = model.kneighbors(vectors[start : start + block])
        others = indices != np.arange(start, start + len(indices))[:, None]
        # among more than k copies of a row it need not find itself: then another one is left out
        others[others.all(axis=1), 0] = False
        found.append((distances[others].reshape(-1, k), indices[others].reshape(-1, k)))
    return np.concatenate([one for one, _ in found]), np.concatenate([other for _, other in found])


def smooth(vectors: Vector, transitions: sparse.csr_matrix, *, share: float, times: int) -> Vector:
    """Move each row (n, d) by ``share`` (0 to 1) towards the mean of its neighbours, ``times`` over; unit rows."""
    for _ in range(times):
        moved = (1.0 - share) * vectors + share * (transitions @ vectors)
        vectors = unit(moved.astype(np.float32, copy=False))
    return vectors


def flow_between(labels: NDArray[np.int32], transitions: sparse.csr_matrix) -> NDArray[np.float64]:
    """Share of the walk's steps that lead from one cluster to another, (k, k), the mean of both directions.

    ``labels`` (n,) from 0, with -1 for rows that belong to none.
    """
    inside = np.flatnonzero(labels >= 0)
    member = sparse.csr_matrix(
        (np.ones(len(inside)), (inside, labels[inside])), shape=(len(labels), int(labels.max()) + 1)
    )
    steps = (member.T @ transitions @ member).toarray() / np.asarray(member.sum(axis=0)).reshape(-1, 1)
    return np.asarray((steps + steps.T) / 2.0)
