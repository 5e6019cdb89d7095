"""Hierarchical search: the nearest clusters of the current runs first, then only their members.

Cost O(K + k * n / K) for K clusters of which k are searched. Words are looked up everywhere: an inverted index costs no
more for that, and most episodes that share a rare word lie in other clusters. Points that no run has looked at yet
belong to no cell and are searched as well: they are new and few. Routing loses what lies in other clusters; that gap to
the flat search is measured on a share of the queries, and ``auto`` goes back to flat search where it grows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ww_core.models import Vector
from ww_core.stores.ports import GraphStore, VectorStore, Where

_MAX_ROUTES = 64
_GAP_MEMORY = 0.05
"""Share that each new measurement has in the running gap."""
_GAP_MEASUREMENTS = 5
"""Before so many measurements the running gap proves nothing."""


@dataclass(frozen=True, slots=True)
class Route:
    """The centroids of one or several sessions' current runs: ``matrix`` float32 (K, d), a cluster id for each row."""

    attempts: tuple[str, ...]
    cells: tuple[str, ...]
    matrix: Vector

    def nearest(self, query: Vector, k: int) -> tuple[str, ...]:
        """The ids of the ``k`` clusters whose centroids are nearest to ``query`` (d,), nearest first."""
        similarity = self.matrix @ query
        k = min(k, len(self.cells))
        best = np.argpartition(-similarity, k - 1)[:k]
        return tuple(self.cells[i] for i in best[np.argsort(-similarity[best], kind="stable")])

    def affinities(self, query: Vector) -> dict[str, float]:
        """Similarity of ``query`` (d,) to each cluster's centroid, -1 to 1, by cluster id."""
        return dict(zip(self.cells, (self.matrix @ query).tolist(), strict=True))


class Router:
    """Finds the route of a query's sessions; centroids are kept by attempt, pointers are read every time."""

    def __init__(self, graph: GraphStore, vectors: VectorStore) -> None:
        self._graph = graph
        self._vectors = vectors
        self._lock = threading.Lock()
        self._routes: OrderedDict[tuple[str, ...], Route] = OrderedDict()

    def route(self, attempts: Mapping[str, str]) -> Route | None:
        """``attempts`` as ``GraphStore.current_attempts`` gives it; None where they have no clusters."""
        if not attempts:
            return None
        key = tuple(attempts[session] for session in sorted(attempts))
        with self._lock:
            route = self._routes.get(key)
            if route is not None:
                self._routes.move_to_end(key)
        if route is None:
            route = self._load(attempts, key)
            with self._lock:
                self._routes[key] = route
                while len(self._routes) > _MAX_ROUTES:
                    self._routes.popitem(last=False)
        return route if route.cells else None

    def _load(self, attempts: Mapping[str, str], key: tuple[str, ...]) -> Route:
        centroids = [c for session, one in sorted(attempts.items()) for c in self._vectors.centroids(session, one)]
        matrix = np.stack([c.vector for c in centroids]) if centroids else np.zeros((0, 1), np.float32)
        return Route(attempts=key, cells=tuple(c.cluster_id for c in centroids), matrix=matrix)


def within(where: Where, cells: Sequence[str]) -> Where:
    """The part of ``where`` that lies in the cells, or that no run has looked at."""
    return replace(where, cells=tuple(cells), uncelled=True)


class Gap:
    """The running share of flat results that routing missed, 0 to 1. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._value = 0.0
        self.measurements = 0

    def measure(self, routed: Sequence[str], flat: Sequence[str]) -> float:
        """Take in one query answered both ways; the share it missed."""
        missed = len(set(flat) - set(routed)) / len(flat) if flat else 0.0
        with self._lock:
            self.measurements += 1
            memory = max(_GAP_MEMORY, 1.0 / self.measurements)
            self._value += memory * (missed - self._value)
        return missed

    @property
    def value(self) -> float:
        """nan before the first measurement."""
        return self._value if self.measurements else float("nan")

    def exceeds(self, limit: float) -> bool:
        """Whether enough queries were measured to say that the gap is above ``limit``."""
        return self.measurements >= _GAP_MEASUREMENTS and self._value > limit
