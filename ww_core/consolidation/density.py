"""Exact HDBSCAN on unit rows: a minimum spanning tree made with matrix products, then scikit-learn's tree code.

The libraries' own paths spend their time finding neighbours in trees, which do not help in 96 dimensions. Up to
``DENSE_LIMIT`` rows the distances fit in memory and Prim's algorithm walks them; beyond it Boruvka's algorithm
recomputes them in blocks, so memory stays linear. Both release the GIL in all but the last step, which is linear.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import HDBSCAN

from ww_core.consolidation.progress import unwatched
from ww_core.models import Vector

DENSE_LIMIT = 6000
"""Rows whose distances are kept: 144 MB of float32."""
BLOCK = 1024
"""Rows of distances made at a time beyond that, and steps of a tree between two looks at whether to go on."""
_CLOSEST = 1e-7
"""Added to every edge: the sparse input of HDBSCAN reads 0 as "no edge"."""

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def density_clusters(
    vectors: Vector, *, min_cluster_size: int, min_samples: int, step: Callable[[], None] = unwatched
) -> NDArray[np.int32]:
    """HDBSCAN labels (n,) from 0, -1 for noise, of unit rows (n, d) by euclidean distance.

    ``min_samples`` counts neighbours, the row itself not among them. Fewer rows than twice ``min_cluster_size`` cannot
    be told apart and are all noise. ``step`` is called every second or so of work, and may raise.
    """
    n = len(vectors)
    if n < 2 * min_cluster_size:
        return np.full(n, -1, dtype=np.int32)
    rows, columns, weights = spanning_tree(vectors, min_samples=min_samples, step=step)
    tree = sparse.coo_matrix((weights.astype(np.float64) + _CLOSEST, (rows, columns)), shape=(n, n)).tocsr()
    # With one neighbour as density, the mutual reachability of the tree's edges is the edges themselves.
    model = HDBSCAN(metric="precomputed", min_cluster_size=min_cluster_size, min_samples=1, copy=False)
    return np.asarray(model.fit(tree + tree.T).labels_, dtype=np.int32)


def spanning_tree(vectors: Vector, *, min_samples: int, step: Callable[[], None] = unwatched) -> Edges:
    """Minimum spanning tree of the mutual reachability of unit rows (n, d): ends and lengths, each (n - 1,)."""
    if len(vectors) <= DENSE_LIMIT:
        return _prim(vectors, min_samples, step)
    return _boruvka(vectors, min_samples, step)


def _distances(rows: Vector, columns: Vector) -> Vector:
    squared = rows @ columns.T
    squared *= -2.0
    squared += 2.0
    np.maximum(squared, 0.0, out=squared)
    return np.asarray(np.sqrt(squared, out=squared))


def _core_distances(distances: Vector, min_samples: int) -> Vector:
    kth = min(min_samples, distances.shape[1] - 1)
    return np.ascontiguousarray(np.partition(distances, kth, axis=1)[:, kth])


def _prim(vectors: Vector, min_samples: int, step: Callable[[], None]) -> Edges:
    n = len(vectors)
    distances = _distances(vectors, vectors)
    np.fill_diagonal(distances, 0.0)
    step()
    core = _core_distances(distances, min_samples)
    nearest = np.full(n, np.inf, dtype=np.float32)
    source = np.zeros(n, dtype=np.int64)
    closed = np.zeros(n, dtype=np.float32)
    rows, columns = np.empty(n - 1, dtype=np.int64), np.empty(n - 1, dtype=np.int64)
    weights = np.empty(n - 1, dtype=np.float32)
    reach, open_nearest = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.float32)
    current = 0
    for edge in range(n - 1):
        if edge % BLOCK == 0:
            step()
        closed[current] = np.inf
        np.maximum(distances[current], core, out=reach)
        np.maximum(reach, core[current], out=reach)
        closer = reach < nearest
        nearest[closer] = reach[closer]
        source[closer] = current
        np.add(nearest, closed, out=open_nearest)
        current = int(open_nearest.argmin())
        rows[edge], columns[edge], weights[edge] = source[current], current, nearest[current]
    return rows, columns, weights


def _boruvka(vectors: Vector, min_samples: int, step: Callable[[], None]) -> Edges:
    n = len(vectors)
    core = np.empty(n, dtype=np.float32)
    for start in range(0, n, BLOCK):
        step()
        distances = _distances(vectors[start : start + BLOCK], vectors)
        distances[np.arange(len(distances)), np.arange(start, start + len(distances))] = 0.0
        core[start : start + BLOCK] = _core_distances(distances, min_samples)
    component: NDArray[np.int64] = np.arange(n)
    count = n
    found: list[Edges] = []
    while count > 1:
        # Rows in the order of their components make "same component" a range of columns instead of a mask.
        order = np.argsort(component, kind="stable")
        ordered, ordered_core, ordered_component = vectors[order], core[order], component[order]
        first = np.searchsorted(ordered_component, np.arange(count + 1))
        best_column, best = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.float32)
        for start in range(0, n, BLOCK):
            step()
            stop = min(start + BLOCK, n)
            reach = _distances(ordered[start:stop], ordered)
            np.maximum(reach, ordered_core, out=reach)
            np.maximum(reach, ordered_core[start:stop, None], out=reach)
            for piece in range(int(ordered_component[start]), int(ordered_component[stop - 1]) + 1):
                inside = slice(max(first[piece] - start, 0), min(first[piece + 1], stop) - start)
                reach[inside, first[piece] : first[piece + 1]] = np.inf
            best_column[start:stop] = reach.argmin(axis=1)
            best[start:stop] = reach[np.arange(stop - start), best_column[start:stop]]
        lower, upper = np.minimum(np.arange(n), best_column), np.maximum(np.arange(n), best_column)
        # One total order of the edges, equal lengths included, keeps the chosen edges free of cycles.
        ranking = np.lexsort((order[upper], order[lower], best, ordered_component))
        chosen = ranking[np.searchsorted(ordered_component[ranking], np.arange(count))]
        rows, columns, weights = order[lower[chosen]], order[upper[chosen]], best[chosen]
        _, keep = np.unique(np.minimum(rows, columns) * n + np.maximum(rows, columns), return_index=True)
        found.append((rows[keep], columns[keep], weights[keep]))
        every = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        forest = sparse.coo_matrix((np.ones(len(every[0])), (every[0], every[1])), shape=(n, n))
        count, pieces = connected_components(forest, directed=False)
        component = pieces.astype(np.int64)
    rows, columns, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return rows, columns, weights
