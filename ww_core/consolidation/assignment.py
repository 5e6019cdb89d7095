"""Putting episodes where they fit: the nearest centroid within the cluster's radius, and the figures that follow it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ww_core.consolidation.neighbours import unit
from ww_core.models import Vector

RADIUS_QUANTILE = 0.98
"""Share of the members that a radius holds: the outermost ones are borderline by definition."""
OWN_RADIUS = 0.5
"""Weight of a cluster's own radius beside that of all clusters together: few members say little about their spread. On
CLINC150 the mixture turns away 84% of what is out of scope and 13% of what is in scope; own radii alone 82% and 18%."""
STRAY_SHARE = 0.25
"""Of a cluster's size when it was last clustered: with more strays than that it has drifted."""
STRAYS_AT_LEAST = 20
"""Fewer strays prove nothing."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where n rows go among k clusters. With k = 0 ``nearest`` is -1 and ``distance`` 2."""

    nearest: NDArray[np.int32]
    """(n,) index of the nearest centroid."""
    distance: Vector
    """(n,) 1 - cosine to it, 0 to 2."""
    inside: NDArray[np.bool_]
    """(n,) whether that is within the cluster's radius."""


def assign(vectors: Vector, centroids: Vector, radii: Vector) -> Assignment:
    """Nearest of the unit centroids (k, d) for each unit row (n, d); ``radii`` (k,) in 1 - cosine."""
    n = len(vectors)
    if not len(centroids):
        return Assignment(np.full(n, -1, np.int32), np.full(n, 2.0, np.float32), np.zeros(n, np.bool_))
    cosines = vectors @ centroids.T
    nearest = cosines.argmax(axis=1).astype(np.int32)
    distance = (1.0 - cosines[np.arange(n), nearest]).astype(np.float32)
    return Assignment(nearest, distance, distance <= radii[nearest])


def radius(distances: Vector, overall: float | None = None) -> float:
    """Distance (1 - cosine) within which an episode belongs, from the members' distances (n,) to their centroid.

    ``overall`` is the same of the members of all clusters.
    """
    own = float(np.quantile(distances, RADIUS_QUANTILE)) if len(distances) else 0.0
    return own if overall is None else OWN_RADIUS * own + (1.0 - OWN_RADIUS) * overall


def has_drifted(strays: int, clustered_size: int) -> bool:
    """Whether so many episodes fitted a cluster badly that it should be looked at again."""
    return strays >= max(STRAYS_AT_LEAST, STRAY_SHARE * clustered_size)


class Tally:
    """Sizes, centroids and strays of k clusters while members come in; cost does not depend on who is in already.

    A centroid of ``size`` members with mean cosine ``cohesion`` stands for their vector sum exactly: its length is
    size * cohesion.
    """

    def __init__(self, centroids: Vector, sizes: NDArray[np.int64], cohesion: Vector) -> None:
        self._sums = centroids.astype(np.float64) * (sizes * cohesion.astype(np.float64))[:, None]
        self.sizes = sizes.astype(np.int64).copy()
        self.strays = np.zeros(len(sizes), dtype=np.int64)

    def grow(self) -> None:
        """Make room for one more cluster, without members."""
        self._sums = np.vstack([self._sums, np.zeros((1, self._sums.shape[1]))])
        self.sizes = np.append(self.sizes, 0)
        self.strays = np.append(self.strays, 0)

    def take_in(self, vectors: Vector, clusters: NDArray[np.int32]) -> None:
        """Members (n, d) joining the clusters (n,)."""
        if not len(clusters):
            return
        n = len(clusters)
        # adds row by row, as a loop would, in a quarter of the time that numpy's reduceat takes
        joining = sparse.csc_array((np.ones(n), clusters, np.arange(n + 1)), shape=(len(self._sums), n))
        self._sums += joining @ vectors.astype(np.float64)
        self.sizes += np.bincount(clusters, minlength=len(self.sizes))

    def turn_away(self, clusters: NDArray[np.int32]) -> None:
        """Rows whose nearest cluster (n,) did not take them in."""
        self.strays += np.bincount(clusters, minlength=len(self.strays))

    def let_go(self, cluster: int) -> None:
        """Forget all members of a cluster."""
        self._sums[cluster] = 0.0
        self.sizes[cluster] = self.strays[cluster] = 0

    def centroids(self) -> Vector:
        """(k, d) unit rows."""
        return unit(self._sums.astype(np.float32))

    def cohesion(self) -> Vector:
        """(k,) mean cosine of the members to their centroid."""
        lengths = np.linalg.norm(self._sums, axis=1) / np.maximum(self.sizes, 1)
        return np.asarray(np.clip(lengths, 0.0, 1.0), dtype=np.float32)


def distance_to(vectors: Vector, centroids: Vector, nearest: NDArray[np.int32]) -> Vector:
    """Cosine distance (n,) of each of ``vectors`` (n, d) to its ``centroids[nearest]``; 2 where there are none."""
    if not len(centroids):
        return np.full(len(vectors), 2.0, dtype=np.float32)
    return np.asarray(1.0 - np.einsum("nd,nd->n", vectors, centroids[nearest]), dtype=np.float32)
