"""What a clustering of the sample says about the clusters: which stay, are new, grow, split, merge or go."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ww_core.config import Settings
from ww_core.consolidation.assignment import assign, distance_to, has_drifted, radius
from ww_core.consolidation.clustering import Clustering
from ww_core.consolidation.groups import Group, Groups, new_cluster_id, rows_by_label, shape
from ww_core.consolidation.identity import Matching
from ww_core.consolidation.naming import renew_exemplars
from ww_core.consolidation.restructure import Restructure
from ww_core.consolidation.sampling import EXEMPLARS_PER_CLUSTER, draw
from ww_core.consolidation.selection import Sample
from ww_core.consolidation.sink import Sink
from ww_core.models import Run, Vector
from ww_core.stores.ports import GraphStore, VectorStore


class Adoption:
    """Brings the ``groups`` to what was ``found`` in the ``sample``, of clusters with unit ``means`` (count, d)."""

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        settings: Settings,
        groups: Groups,
        sample: Sample,
        found: Clustering,
        means: Vector,
        matching: Matching,
        *,
        run: Run,
        sink: Sink,
        step: Callable[[], None],
        rng: np.random.Generator,
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._settings = settings
        self._groups = groups
        self._sample = sample
        self._found = found
        self._means = means
        self._matching = matching
        self._run = run
        self._sink = sink
        self._step = step
        self._rng = rng
        self._rows_of = rows_by_label(found.labels, found.count)
        inside = found.labels >= 0
        self._overall = radius(distance_to(sample.vectors[inside], means, found.labels[inside]))
        """Radius of all clusters together."""
        self.clustered: set[int] = set()
        """Places of the groups whose shape was found anew in this run."""

    def whole(self) -> NDArray[np.int32]:
        """The found clusters replace the known ones; each row's place among the groups (n,), -1 for none."""
        groups, sample, means, matching = self._groups, self._sample, self._means, self._matching
        ids = [group.cluster_id for group in groups.items]
        places = np.full(len(sample.episodes), -1, dtype=np.int32)
        for i in matching.gone:
            groups.items[i].gone, groups.items[i].change = True, "gone"
            groups.tally.let_go(i)
        for label, rows in enumerate(self._rows_of):
            fate = matching.found[label]
            medoid, radius = shape(sample.vectors[rows], means[label], self._overall)
            if fate.known is None:
                place = self._new_group(sample.episodes[rows[medoid]].episode_id, means[label])
            else:
                place = fate.known
                groups.tally.let_go(place)
                groups.centroids[place] = means[label]
            group = groups.items[place]
            group.radius, group.change = radius, fate.change
            group.parents = tuple(ids[j] for j in fate.parents)
            group.exemplars = draw([sample.episodes[r].episode_id for r in rows], EXEMPLARS_PER_CLUSTER, self._rng)
            group.strays = 0
            self.clustered.add(place)
            places[rows] = place
        groups.tally.take_in(sample.vectors[places >= 0], places[places >= 0])
        return places

    def part(self) -> NDArray[np.int32]:
        """Known clusters take in what was found with them and stay otherwise as they are, unless they have grown or
        drifted; each row's place among the groups (n,), -1 for none."""
        groups, sample, matching = self._groups, self._sample, self._matching
        known = len(groups)
        rework = Restructure(self._graph, self._vectors, self._settings, groups, self._run, self._sink, self._step)
        for fate, rows in zip(matching.found, self._rows_of, strict=True):
            for j in (fate.known,) if fate.known is not None else fate.parents[:1]:
                coming = float(sample.weights[rows[sample.new[rows]]].sum())
                rework.arriving[j] = rework.arriving.get(j, 0.0) + coming
        homes = {label: fate.known for label, fate in enumerate(matching.found) if fate.known is not None}
        torn_off: dict[int, int] = {}
        for i in range(known):
            torn_off |= self._split_or_widen(i, rework, torn_off)
        homes |= torn_off
        for fate in matching.found:
            if fate.change == "merged" and fate.known is not None:
                for j in fate.parents:
                    if j in matching.gone and rework.may(j) and fate.known not in rework.done:
                        rework.merge(j, fate.known)
        places = sample.known.copy()
        rework.follow(places, sample.vectors)
        for label, fate in enumerate(matching.found):
            if label not in homes and fate.parents:
                homes[label] = fate.parents[0]
        self._place_free(homes, places)
        self.clustered |= rework.done | set(range(known, len(groups)))
        self._take_in(places)
        return places

    def _split_or_widen(self, i: int, rework: Restructure, torn_off: Mapping[int, int]) -> dict[int, int]:
        """Take the known cluster ``i`` apart where it fell apart, into places by label; else give it its new radius
        where it has drifted. ``torn_off``: places of what was made of the parts of others, which may be of this too."""
        groups, sample, means, matching = self._groups, self._sample, self._means, self._matching
        parts = [label for label, fate in enumerate(matching.found) if i in fate.parents and fate.change == "split"]
        parts.sort(key=lambda label: (matching.found[label].known != i, label in torn_off, label))
        if len(parts) > 1 and parts[0] not in torn_off and rework.may(i):
            pieces = [(self._rows_of[label], means[label], torn_off.get(label)) for label in parts]
            return dict(zip(parts, rework.split(i, sample, pieces, self._overall, self._rng), strict=True))
        if has_drifted(groups.items[i].strays, groups.items[i].clustered_size):
            # It holds together all the same: what it is made of has moved or widened.
            own = sample.vectors[sample.known == i]
            if len(own):
                groups.items[i].radius = shape(own, groups.centroids[i], self._overall)[1]
            self.clustered.add(i)
        return {}

    def _place_free(self, homes: Mapping[int, int], places: NDArray[np.int32]) -> None:
        """Give the rows that no known cluster had a place, in ``places`` (n,): the home of their label, a new cluster
        where it has none, or where each fits."""
        groups, sample, means = self._groups, self._sample, self._means
        for label, rows in enumerate(self._rows_of):
            free = rows[sample.known[rows] < 0]
            home = homes.get(label)
            if home is None and len(free) > 1:
                medoid, radius = shape(sample.vectors[free], means[label], self._overall)
                home = self._new_group(sample.episodes[free[medoid]].episode_id, means[label])
                groups.items[home].radius = radius
            if home is None or groups.items[home].gone:
                # Too few to be a cluster, or theirs was just merged away: each goes where it fits.
                to = assign(sample.vectors[free], groups.open_centroids(), groups.radii())
                places[free] = np.where(to.inside, to.nearest, -1)
            else:
                places[free] = home

    def _take_in(self, places: NDArray[np.int32]) -> None:
        groups, sample = self._groups, self._sample
        joined = (places >= 0) & (sample.known < 0)
        groups.tally.take_in(sample.vectors[joined], places[joined])
        centroids = groups.tally.centroids()
        for i, rows in enumerate(rows_by_label(np.where(joined, places, -1).astype(np.int32), len(groups))):
            if not len(rows):
                continue
            group, total = groups.items[i], int(groups.tally.sizes[i])
            groups.centroids[i] = centroids[i]
            names = [sample.episodes[r].episode_id for r in rows]
            renew_exemplars(group, group.exemplars, names, total=total, arrived=len(rows), rng=self._rng)

    def _new_group(self, medoid_id: str, centroid: Vector) -> int:
        groups = self._groups
        cluster_id = new_cluster_id(groups.session_id, self._run.seq, medoid_id)
        return groups.append(Group(cluster_id, 0.0, created_at=self._run.started_at), centroid)
