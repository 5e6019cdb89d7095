"""Reworking single clusters of a large session: splitting one that fell apart, merging two into one.

Both touch every member of the cluster, which is why only what has grown or drifted is reworked, and little of it in one
run: each episode is then moved a number of times that grows with the logarithm of what is stored, whatever the number
of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ww_core.config import Settings
from ww_core.consolidation.assignment import assign, has_drifted
from ww_core.consolidation.groups import Group, Groups, new_cluster_id, shape
from ww_core.consolidation.sampling import EXEMPLARS_PER_CLUSTER, draw
from ww_core.consolidation.selection import PAGE, Sample
from ww_core.consolidation.sink import Sink
from ww_core.models import Run, Vector
from ww_core.stores.pages import memberships
from ww_core.stores.ports import GraphStore, Membership, VectorStore

GROWTH = 1.25
"""Times the size it was last clustered at, from which a cluster may be reworked."""
REWORKS_PER_RUN = 8
"""Clusters whose members are moved in one run; the others have to wait for the next."""


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

    def may(self, i: int) -> bool:
        """Whether a cluster has changed enough to be reworked, and this run has not reworked enough of them."""
        group, size = self._groups.items[i], int(self._groups.tally.sizes[i]) + self.arriving.get(i, 0.0)
        if i in self.done or group.gone or len(self.moved) >= REWORKS_PER_RUN:
            return False
        return size >= GROWTH * group.clustered_size or has_drifted(group.strays, group.clustered_size)

    def split(
        self,
        i: int,
        sample: Sample,
        parts: Sequence[tuple[NDArray[np.int64], Vector, int | None]],
        overall: float,
        rng: np.random.Generator,
    ) -> list[int]:
        """Take a cluster apart into what was found of it; the first part keeps its id. The places of the parts.

        ``parts``: the rows of the sample in each, their unit mean (d,), and the place of the cluster where it was torn
        off another one as well in this run; ``overall``: radius of all clusters.
        """
        groups, group = self._groups, self._groups.items[i]
        old = group.cluster_id
        places = []
        for number, (rows, mean, made) in enumerate(parts):
            medoid, radius = shape(sample.vectors[rows], mean, overall)
            parents, exemplars = [old], []
            if made is not None:
                place, part = made, groups.items[made]
                parents, exemplars = [*part.parents, old], [*part.exemplars]
            elif number == 0:
                place, part = i, group
                groups.tally.let_go(i)
                groups.centroids[i] = mean
            else:
                name = new_cluster_id(groups.session_id, self._run.seq, sample.episodes[rows[medoid]].episode_id)
                part = Group(name, radius, created_at=self._run.started_at)
                place = groups.append(part, mean)
            known = [sample.episodes[r].episode_id for r in rows if sample.known[r] == i]
            part.radius, part.change, part.parents, part.strays = radius, "split", tuple(parents), 0
            part.exemplars = (*exemplars, *draw(known, EXEMPLARS_PER_CLUSTER, rng))[: 2 * EXEMPLARS_PER_CLUSTER]
            places.append(place)
        self.done |= set(places)
        self.moved[i] = places
        self._move(places, old)
        return places

    def merge(self, source: int, target: int) -> None:
        """Move the members of ``source`` to ``target``; ``source`` is gone."""
        groups = self._groups
        gone, kept = groups.items[source], groups.items[target]
        self.done |= {source, target}
        self.moved[source] = [target]
        self._move([target], gone.cluster_id)
        gone.gone, gone.change = True, "gone"
        groups.tally.let_go(source)
        kept.change = "merged"
        kept.parents = tuple(dict.fromkeys([*(kept.parents or (kept.cluster_id,)), gone.cluster_id]))
        kept.exemplars = (*kept.exemplars, *gone.exemplars)[: 2 * EXEMPLARS_PER_CLUSTER]
        kept.radius = max(kept.radius, gone.radius)
        kept.strays = 0

    def follow(self, places: NDArray[np.int32], rows: Vector) -> None:
        """Bring the places (n,) of rows (n, d) to where the members of their clusters went, in place."""
        for i, parts in self.moved.items():
            members = np.flatnonzero(places == i)
            if len(members):
                places[members] = self._nearest(rows[members], parts)[0]

    def _nearest(self, rows: Vector, parts: Sequence[int]) -> tuple[NDArray[np.int32], Vector]:
        to = assign(rows, self._groups.centroids[list(parts)], np.zeros(len(parts), np.float32))
        return np.asarray(parts, dtype=np.int32)[to.nearest], to.distance

    def _move(self, parts: Sequence[int], old: str) -> None:
        groups, size = self._groups, self._settings.consolidation_batch_size
        was = Membership("", old, old, 0.0)
        for page in memberships(self._graph, groups.session_id, old, size=PAGE):
            originals = {m.episode_id: m.duplicate_of for m in page}
            for start in range(0, len(page), size):
                self._step()
                stored = self._vectors.vectors([m.episode_id for m in page[start : start + size]])
                if not stored:
                    continue
                rows = np.stack([s.vector for s in stored]).astype(np.float32)
                places, distances = self._nearest(rows, parts)
                groups.tally.take_in(rows, places)
                moved = []
                for item, place, distance in zip(stored, places, distances, strict=True):
                    name = groups.items[place].cluster_id
                    if name != old:
                        original = originals[item.episode_id]
                        moved.append(Membership(item.episode_id, name, name, float(distance), original))
                self._sink.put(moved, {m.episode_id: was for m in moved})
