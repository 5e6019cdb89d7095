"""The clusters of a run in the making, and how they become the run's clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ww_core.consolidation.assignment import Tally, radius
from ww_core.models import Change, Cluster, Medoid, Vector


@dataclass
class Group:
    """One cluster while the run works on it. Its size and centroid are in the Tally, under the same index."""

    cluster_id: str
    radius: float
    change: Change = "new"
    parents: tuple[str, ...] = ()
    label: str = ""
    keyphrases: tuple[str, ...] = ()
    medoid: Medoid | None = None
    created_at: datetime | None = None
    exemplars: tuple[str, ...] = ()
    clustered_size: int = 0
    strays: int = 0
    gone: bool = False

    @classmethod
    def of(cls, cluster: Cluster) -> Group:
        """A known cluster, as nothing has happened to it yet."""
        return cls(
            cluster.cluster_id,
            cluster.radius,
            "kept",
            (),
            cluster.label,
            cluster.keyphrases,
            cluster.medoid,
            cluster.created_at,
            cluster.exemplars,
            cluster.clustered_size,
            cluster.strays,
        )


@dataclass
class Groups:
    """All clusters of the run in the making, gone ones included, in one fixed order."""

    session_id: str
    items: list[Group]
    tally: Tally
    centroids: Vector
    """(k, d) those that episodes are assigned by; the tally's move on while members come in."""
    _index: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._index = {group.cluster_id: i for i, group in enumerate(self.items)}

    @classmethod
    def empty(cls, session_id: str, dimension: int) -> Groups:
        """Of a session without clusters."""
        nothing = np.empty((0, dimension), dtype=np.float32)
        return cls(session_id, [], Tally(nothing, np.empty(0, np.int64), np.empty(0, np.float32)), nothing)

    @classmethod
    def known(cls, session_id: str, clusters: Sequence[Cluster], centroids: Mapping[str, Vector]) -> Groups:
        """Of the current run: clusters that have a centroid (d,) and are not gone."""
        alive = [c for c in clusters if c.change != "gone" and c.size > 0 and c.cluster_id in centroids]
        if not alive:
            dimension = len(next(iter(centroids.values()))) if centroids else 0
            return cls.empty(session_id, dimension)
        rows = np.stack([centroids[c.cluster_id] for c in alive]).astype(np.float32)
        tally = Tally(
            rows,
            np.array([c.size for c in alive], dtype=np.int64),
            np.array([c.cohesion for c in alive], dtype=np.float32),
        )
        return cls(session_id, [Group.of(c) for c in alive], tally, rows)

    def __len__(self) -> int:
        return len(self.items)

    def index(self, cluster_id: str | None) -> int:
        """Place of a cluster, -1 where there is none of that id."""
        return -1 if cluster_id is None else self._index.get(cluster_id, -1)

    def id_of(self, index: int) -> str | None:
        """Cluster id at a place; None for -1."""
        return self.items[index].cluster_id if index >= 0 else None

    def radii(self) -> Vector:
        """(k,); negative, so that nothing fits, for clusters that are gone."""
        return np.array([-1.0 if g.gone else g.radius for g in self.items], dtype=np.float32)

    def open_centroids(self) -> Vector:
        """(k, d) of the assignment, with gone clusters turned to zero so that they are nearest to nothing similar."""
        rows = self.centroids.copy()
        rows[[i for i, g in enumerate(self.items) if g.gone]] = 0.0
        return rows

    def append(self, group: Group, centroid: Vector) -> int:
        """Add a cluster without members; its place."""
        self.items.append(group)
        self._index[group.cluster_id] = len(self.items) - 1
        self.centroids = np.vstack([self.centroids, centroid[None, :]]) if len(self.centroids) else centroid[None, :]
        self.tally.grow()
        return len(self.items) - 1

    def finished(self) -> tuple[Cluster, ...]:
        """The run's clusters: largest first, gone ones last."""
        cohesion = self.tally.cohesion()
        clusters = []
        for i, group in enumerate(self.items):
            size = 0 if group.gone else int(self.tally.sizes[i])
            clusters.append(
                Cluster(
                    cluster_id=group.cluster_id,
                    session_id=self.session_id,
                    label=group.label,
                    size=size,
                    keyphrases=group.keyphrases,
                    medoid=group.medoid,
                    change="gone" if not size else group.change,
                    parents=group.parents,
                    radius=group.radius,
                    created_at=group.created_at,
                    exemplars=group.exemplars if size else (),
                    cohesion=float(cohesion[i]),
                    clustered_size=group.clustered_size,
                    strays=group.strays + int(self.tally.strays[i]),
                )
            )
        return tuple(sorted(clusters, key=lambda c: (-c.size, c.cluster_id)))


def new_cluster_id(session_id: str, seq: int, medoid_id: str) -> str:
    """The id of a cluster found around an episode by the session's run number ``seq``: the same for the same input."""
    digest = blake2b(f"{session_id}\x1f{seq}\x1f{medoid_id}".encode("utf-8", "surrogatepass"), digest_size=8)
    return f"c{digest.hexdigest()}"


def shape(vectors: Vector, centroid: Vector, overall: float) -> tuple[int, float]:
    """(row of the medoid, radius) of a cluster's member vectors (n, d) around its centroid (d,), ``overall`` being the
    radius of all clusters together."""
    distances: Vector = (1.0 - vectors @ centroid).astype(np.float32)
    return int(distances.argmin()), radius(distances, overall)


def rows_by_label(labels: NDArray[np.int32], count: int) -> list[NDArray[np.int64]]:
    """For each label from 0 to ``count`` - 1 the ascending rows that carry it."""
    order = np.argsort(labels, kind="stable")
    edges = np.searchsorted(labels[order], np.arange(count + 1))
    return [order[edges[i] : edges[i + 1]] for i in range(count)]
