"""Reworking single clusters of a large session: splitting one that drifted or fell apart, merging two into one.

Both touch every member of the cluster, which is why only clusters that have grown or drifted are reworked: each episode
is then moved a number of times that grows with the logarithm of what is stored, whatever the number of runs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ww_core.config import Settings
from ww_core.consolidation.assignment import assign, has_drifted
from ww_core.consolidation.clustering import centroids as mean_rows
from ww_core.consolidation.clustering import cluster
from ww_core.consolidation.groups import Group, Groups, new_cluster_id, rows_by_label, shape
from ww_core.consolidation.sampling import EXEMPLARS_PER_CLUSTER, draw, spread_over_time
from ww_core.consolidation.selection import all_memberships
from ww_core.consolidation.sink import Sink
from ww_core.models import Run, Vector
from ww_core.stores.ports import GraphStore, Membership, VectorStore

GROWTH = 1.25
"""Times the size it was last clustered at, from which a cluster may be reworked."""


class Restructure:
    """Splits and merges of one run's groups, written to its sink."""

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        settings: Settings,
        groups: Groups,
        run: Run,
        sink: Sink,
        step: Callable[[], None],
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._settings = settings
        self._groups = groups
        self._run = run
        self._sink = sink
        self._step = step
        self.done: set[int] = set()
        """Clusters that were reworked in this run; no cluster is reworked twice."""
        self.arriving: dict[int, float] = {}
        """About how many new episodes are going to join each cluster."""
        self.moved: dict[int, list[int]] = {}
        """Where the members of a reworked cluster went: to the nearest of these."""

    def follow(self, places: NDArray[np.int32], rows: Vector) -> None:
        """Bring the places (n,) of rows (n, d) to where the members of their clusters went, in place."""
        for i, parts in self.moved.items():
            members = np.flatnonzero(places == i)
            if len(members):
                to = assign(rows[members], self._groups.centroids[parts], np.zeros(len(parts), np.float32))
                places[members] = np.asarray(parts, dtype=np.int32)[to.nearest]

    def may(self, i: int) -> bool:
        """Whether a cluster has changed enough to be reworked."""
        group, size = self._groups.items[i], int(self._groups.tally.sizes[i]) + self.arriving.get(i, 0.0)
        if i in self.done or group.gone:
            return False
        return size >= GROWTH * group.clustered_size or has_drifted(group.strays, group.clustered_size)

    def split(self, i: int, rng: np.random.Generator) -> None:
        """Cluster the members of one cluster by themselves; the largest part keeps its id. One part: nothing moves."""
        groups, group = self._groups, self._groups.items[i]
        self.done.add(i)
        ids = [m.episode_id for page in all_memberships(self._graph, groups.session_id, group.cluster_id) for m in page]
        chosen = [ids[k] for k in spread_over_time(len(ids), self._settings.consolidation_max_samples, rng)]
        stored = self._vectors.vectors(chosen)
        if not stored:
            return
        rows = np.stack([s.vector for s in stored]).astype(np.float32)
        found = cluster(
            rows,
            min_cluster_size=self._settings.consolidation_min_cluster_size,
            min_samples=self._settings.consolidation_min_samples,
        )
        group.strays = 0
        if found.count < 2:
            group.exemplars = draw([s.episode_id for s in stored], EXEMPLARS_PER_CLUSTER, rng)
            group.radius = shape(rows, groups.centroids[i])[1]
            return
        means = mean_rows(rows, found.labels)
        parts = []
        for label, members in enumerate(rows_by_label(found.labels, found.count)):
            medoid, radius = shape(rows[members], means[label])
            names = [stored[k].episode_id for k in members]
            if label == 0:
                place, part = i, group
                groups.tally.let_go(i)
                groups.centroids[i] = means[0]
            else:
                part = Group(new_cluster_id(groups.session_id, self._run.seq, names[medoid]), radius)
                place = groups.append(part, means[label])
            part.radius, part.change, part.parents = radius, "split", (group.cluster_id,)
            part.exemplars = draw(names, EXEMPLARS_PER_CLUSTER, rng)
            parts.append(place)
            self.done.add(place)
        self.moved[i] = parts
        self._move(ids, parts, group.cluster_id)

    def merge(self, source: int, target: int) -> None:
        """Move the members of ``source`` to ``target``; ``source`` is gone."""
        groups = self._groups
        gone, kept = groups.items[source], groups.items[target]
        self.done |= {source, target}
        ids = [m.episode_id for page in all_memberships(self._graph, groups.session_id, gone.cluster_id) for m in page]
        self.moved[source] = [target]
        self._move(ids, [target], gone.cluster_id)
        gone.gone, gone.change = True, "gone"
        groups.tally.let_go(source)
        kept.change = "merged"
        kept.parents = tuple(dict.fromkeys([*(kept.parents or (kept.cluster_id,)), gone.cluster_id]))
        kept.exemplars = (*kept.exemplars, *gone.exemplars)[: 2 * EXEMPLARS_PER_CLUSTER]
        kept.radius = max(kept.radius, gone.radius)

    def _move(self, ids: list[str], parts: list[int], old: str) -> None:
        groups, size = self._groups, self._settings.consolidation_batch_size
        centroids: Vector = groups.centroids[parts]
        nothing = np.full(len(parts), 2.0, dtype=np.float32)
        for start in range(0, len(ids), size):
            self._step()
            stored = self._vectors.vectors(ids[start : start + size])
            if not stored:
                continue
            rows = np.stack([s.vector for s in stored]).astype(np.float32)
            to = assign(rows, centroids, nothing)
            places = np.asarray(parts, dtype=np.int32)[to.nearest]
            groups.tally.take_in(rows, places)
            moved, before = [], {}
            for k, item in enumerate(stored):
                name = groups.items[places[k]].cluster_id
                if name != old:
                    moved.append(Membership(item.episode_id, name, name, float(to.distance[k])))
                    before[item.episode_id] = Membership(item.episode_id, old, old, 0.0)
            self._sink.put(moved, before)
