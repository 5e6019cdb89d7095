"""One consolidation of one session, from what is new to the clusters it leads to; what it writes goes to a Sink."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ww_core.config import Settings
from ww_core.consolidation.adoption import Adoption
from ww_core.consolidation.assignment import assign, distance_to
from ww_core.consolidation.beside import one_thread
from ww_core.consolidation.clustering import Clustering, cluster
from ww_core.consolidation.clustering import centroids as mean_rows
from ww_core.consolidation.folding import Folding
from ww_core.consolidation.groups import Groups, rows_by_label
from ww_core.consolidation.identity import match
from ww_core.consolidation.naming import Namer
from ww_core.consolidation.sampling import POOL, draw
from ww_core.consolidation.selection import New, Sample, Selector, collect_new
from ww_core.consolidation.sink import Sink
from ww_core.hooks import Hooks
from ww_core.models import Cluster, Run, Vector
from ww_core.observability.metrics import Metrics
from ww_core.stores.leftovers import read_leftovers
from ww_core.stores.ports import GraphStore, Membership, VectorStore

LEFTOVER_SHARE = 0.25
"""Of the cap: unclustered episodes that later runs look at again, so that a slowly growing topic is seen."""
SAME_DISTANCE = 0.02
"""A membership that changes nothing but its distance, and that by less, is not written again."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found. ``leftovers``: ids that fitted nowhere, for later runs to look at."""

    new: New
    """What it looked at for the first time."""
    sampled: int
    assigned: int
    noise: int
    folded: int
    clusters: tuple[Cluster, ...]
    centroids: Mapping[str, Vector]
    """By cluster id, each (d,)."""
    leftovers: tuple[str, ...]


class Pipeline:
    """Steps 1 to 7 of a run. Writes nothing but through the sink."""

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        settings: Settings,
        hooks: Hooks,
        metrics: Metrics,
        *,
        run: Run,
        current: Run | None,
        sink: Sink,
        step: Callable[[float], None],
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._settings = settings
        self._hooks = hooks
        self._metrics = metrics
        self._run = run
        self._current = current
        self._sink = sink
        self._step = step
        self._rng = np.random.default_rng([settings.consolidation_seed, run.seq, zlib.crc32(run.session_id.encode())])
        self._assigned = self._noise = self._folded = 0
        self._unplaced: list[str] = []

    def work(self) -> Outcome | None:
        """Consolidate what is new; None where nothing is."""
        session, cap = self._run.session_id, self._settings.consolidation_max_samples
        with self._metrics.timer("consolidation.select"):
            new = collect_new(self._graph, session, lambda: self._step(0.05))
            if not len(new):
                return None
            groups = self._known_groups()
            leftovers = read_leftovers(self._graph, session)
            whole = self._graph.counts(session).embedded <= POOL * cap
            selector = Selector(self._graph, self._vectors, new, groups, cap=cap, rng=self._rng)
            sample = selector.whole() if whole else selector.drawn(leftovers)
        self._step(0.15)
        if not len(sample.episodes):
            return None
        if not len(groups):
            groups = Groups.empty(session, sample.vectors.shape[1])
        with self._metrics.timer("consolidation.cluster"):
            found = cluster(
                sample.vectors,
                core=sample.core,
                min_cluster_size=self._settings.consolidation_min_cluster_size,
                min_samples=self._settings.consolidation_min_samples,
                step=lambda: self._step(0.15),
            )
        self._step(0.3)
        means = mean_rows(sample.vectors, found.labels)
        matching = match(
            found.labels,
            sample.known,
            found_centroids=means,
            known_centroids=groups.centroids,
            weights=sample.weights,
        )
        with self._metrics.timer("consolidation.copies"):
            folding = Folding(
                self._graph,
                self._vectors,
                self._settings,
                new,
                sample,
                groups,
                whole=whole,
                first=self._current is None,
                step=lambda: self._step(0.3),
            )
        adoption = Adoption(
            self._graph,
            self._vectors,
            self._settings,
            groups,
            sample,
            found,
            means,
            matching,
            run=self._run,
            sink=self._sink,
            step=lambda: self._step(0.35),
            rng=self._rng,
        )
        places = adoption.whole() if whole else adoption.part()
        with self._metrics.timer("consolidation.assign"):
            self._place_sample(groups, sample, found, places, folding)
            if not whole:
                # so little is calculated at a time that a second thread would spend more on waiting for it
                with one_thread():
                    self._place_rest(groups, sample, new, folding)
        self._step(0.9)
        with self._metrics.timer("consolidation.label"):
            members = rows_by_label(places, len(groups))
            Namer(
                groups, [([sample.episodes[r] for r in rows], sample.vectors[rows]) for rows in members], self._hooks
            ).name(lambda: self._step(0.9))
        for i in adoption.clustered:
            groups.items[i].clustered_size = int(groups.tally.sizes[i])
            groups.items[i].strays = groups.tally.strays[i] = 0
        room = int(LEFTOVER_SHARE * cap)
        kept = [] if whole else [e for e in leftovers if e not in sample.before]
        return Outcome(
            new,
            int(sample.core.sum()),
            self._assigned,
            self._noise,
            self._folded,
            groups.finished(),
            dict(zip((g.cluster_id for g in groups.items), groups.tally.centroids(), strict=True)),
            draw([*kept, *self._unplaced], room, self._rng),
        )

    def _known_groups(self) -> Groups:
        if self._current is None:
            return Groups.empty(self._run.session_id, 0)
        stored = self._vectors.centroids(self._run.session_id, self._current.attempt)
        rows = {c.cluster_id: c.vector for c in stored}
        for known in self._current.clusters:
            if known.cluster_id not in rows and known.change != "gone":
                # The vector store was rebuilt: the exemplars say where the cluster was.
                exemplars = self._vectors.vectors(known.exemplars)
                if exemplars:
                    mean = np.mean([s.vector for s in exemplars], axis=0)
                    rows[known.cluster_id] = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)
        return Groups.known(self._run.session_id, self._current.clusters, rows)

    # -- where the episodes go

    def _place_sample(
        self, groups: Groups, sample: Sample, found: Clustering, places: NDArray[np.int32], folding: Folding
    ) -> None:
        to = assign(sample.vectors, groups.open_centroids(), groups.radii())
        first_place = {label: int(places[rows[0]]) for label, rows in _first_rows(found.labels, places)}
        nearest = np.array(
            [
                place if place >= 0 else first_place.get(int(label), -1)
                for place, label in zip(places, found.nearest, strict=True)
            ],
            dtype=np.int32,
        )
        nearest = np.where(nearest < 0, to.nearest, nearest)
        distance = distance_to(sample.vectors, groups.centroids, nearest)
        heads = folding.of_sample(nearest)
        batch: list[Membership] = []
        arrived: list[Membership] = []
        for row, episode in enumerate(sample.episodes):
            placed = Membership(
                episode.episode_id,
                groups.id_of(int(places[row])),
                groups.id_of(int(nearest[row])),
                float(distance[row]),
                heads[row],
            )
            if places[row] < 0:
                self._unplaced.append(episode.episode_id)
            if sample.new[row]:
                arrived.append(placed)
            before = sample.before.get(episode.episode_id)
            if before is None or (places[row] != sample.known[row] or _differs(before, placed)):
                batch.append(placed)
        self._count(arrived)
        size = self._settings.consolidation_batch_size
        for start in range(0, len(batch), size):
            self._step(0.4)
            self._sink.put(batch[start : start + size], sample.before)

    def _place_rest(self, groups: Groups, sample: Sample, new: New, folding: Folding) -> None:
        sampled = np.zeros(len(new), dtype=np.bool_)
        sampled[sample.place[sample.new]] = True
        centroids, radii = groups.open_centroids(), groups.radii()
        size = self._settings.consolidation_batch_size
        for start in range(0, len(new), size):
            self._step(0.4 + 0.5 * start / len(new))
            rest = start + np.flatnonzero(~sampled[start : start + size])
            single = bool(new.single[rest].all())
            stored = self._vectors.vectors([new.ids[i] for i in rest.tolist()], single=single)
            if not len(stored):
                continue
            if len(stored) < len(rest):
                there = set(stored.episode_ids)
                rest = np.array([i for i in rest.tolist() if new.ids[i] in there])
            rows = stored.rows
            to = assign(rows, centroids, radii)
            groups.tally.take_in(rows[to.inside], to.nearest[to.inside])
            near = ~to.inside & (to.distance <= 2.0 * radii[to.nearest]) if len(groups) else ~to.inside
            groups.tally.turn_away(to.nearest[near & (to.nearest >= 0)])
            heads = folding.of_batch(rest, rows, to.nearest)
            names = map(groups.id_of, to.nearest.tolist())
            found = zip(stored.episode_ids, names, to.inside.tolist(), to.distance.tolist(), heads, strict=True)
            batch = [
                Membership(episode_id, cell if inside else None, cell, distance, head)
                for episode_id, cell, inside, distance, head in found
            ]
            self._count(batch)
            self._unplaced += [m.episode_id for m in batch if m.cluster_id is None]
            self._sink.put(batch, {})

    def _count(self, placed: Sequence[Membership]) -> None:
        """Of new episodes, where they go."""
        noise = sum(m.cluster_id is None for m in placed)
        self._noise += noise
        self._assigned += len(placed) - noise
        self._folded += sum(m.duplicate_of is not None for m in placed)


def _first_rows(labels: NDArray[np.int32], places: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int64]]]:
    count = int(labels.max(initial=-1)) + 1
    pairs = []
    for label, rows in enumerate(rows_by_label(labels, count)):
        placed = rows[places[rows] >= 0]
        if len(placed):
            pairs.append((label, placed))
    return pairs


def _differs(before: Membership, after: Membership) -> bool:
    same = (before.cluster_id, before.nearest, before.duplicate_of) == (
        after.cluster_id,
        after.nearest,
        after.duplicate_of,
    )
    return not same or abs(before.distance - after.distance) > SAME_DISTANCE
