"""The vector port on a qdrant-edge shard of this process: what its owner runs."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from struct import Struct
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import collection, engine, rewrite, room
from ww_core.stores.embedded.vectors.engine import translated
from ww_core.stores.embedded.vectors.rewrite import Touched
from ww_core.stores.ports import (
    CONTENT,
    Centroid,
    Fingerprint,
    Hit,
    Point,
    PointChange,
    Search,
    SparseVector,
    StoredVector,
    Where,
)

PAGE = 10_000
"""Points read in one scroll."""
READ_AND_RELEASED = 50_000
"""Vectors read (of 384 numbers: 77 MB) from which their pages are let go of."""
MOST = 0.5
"""Share of the points above which a condition is applied to what was found instead of before."""
MARGIN = 16
"""Points asked for beyond what that share suggests."""


class Shard:
    """A Tier on the collection in ``directory``. Thread-safe; one per directory on the machine.

    Without a collection reads answer that there is nothing, and writes raise ConfigurationError. A ``cold`` one leaves
    everything on disk.
    """

    def __init__(self, directory: Path, *, namespace: str, cold: bool = False) -> None:
        self._directory = directory
        self._cold = cold
        self._namespace = namespace
        self._write = threading.RLock()
        self._closed = False
        self._leaving = False
        """Closing waits for a running scrub, which looks here between two calls of the engine."""
        self._scrubbing = threading.Lock()
        self._read = 0
        """Vectors read since their pages were let go of."""
        self._touched: Touched | None = None
        """What a running scrub has to look at again; guarded by the write lock."""
        self._shard: edge.EdgeShard | None = None
        self._collection = collection.find(directory, cold=cold)
        if self._collection is not None:
            self._collection.tidy()
            room.need_to_open(self._collection.shard)
            with translated("opening it"):
                self._shard = edge.EdgeShard.load(str(self._collection.shard))
                outdated = engine.outdated_centroids()
                if self._shard.count(edge.CountRequest(filter=outdated)):
                    self._shard.update(edge.UpdateOperation.delete_points_by_filter(outdated))
                if cold:
                    self._shard.optimize()  # nothing, unless many points came since
            engine.return_memory()

    # -- the collection

    def ping(self) -> None:
        return None

    def close(self) -> None:
        self._leaving = True
        with self._scrubbing, self._write:
            self._closed = True
            shard, self._shard = self._shard, None
            if shard is not None:
                with translated("closing it"):
                    shard.flush()
                    shard.close()

    def ensure(self, fingerprint: Fingerprint) -> None:
        with self._write:
            if self._collection is not None:
                if self._collection.fingerprint != fingerprint:
                    raise collection.another_model(self._collection.fingerprint, fingerprint, self._directory)
                return
            self._directory.mkdir(mode=0o700, exist_ok=True)
            room.need(self._directory, room.TO_WRITE, "creating the collection")
            fresh = collection.new(self._directory, fingerprint, cold=self._cold)
            with translated("creating the collection"):
                shard = fresh.make()
                shard.flush()
                fresh.publish()
            self._shard, self._collection = shard, fresh

    def fingerprint(self) -> Fingerprint | None:
        return None if self._collection is None else self._collection.fingerprint

    def _readable(self) -> edge.EdgeShard | None:
        """None where there is no collection yet."""
        if self._closed:
            raise StoreUnavailable("the vector store was closed")
        return self._shard

    def _writable(self) -> edge.EdgeShard:
        shard = self._readable()
        if shard is None:
            raise ConfigurationError(
                f"no vector collection in {self._directory}", hint="ensure(fingerprint) makes it for a model"
            )
        return shard

    # -- writing

    def upsert(self, points: Sequence[Point]) -> None:
        fresh = p.newest(points)
        if not fresh:
            return
        with self._write, translated("writing points"):
            shard = self._writable()
            room.need(self._directory, room.TO_WRITE, "writing points")
            stored = self._stored([point.episode_id for point in fresh])
            highest = {key: max(g for _, g in rows) for key, rows in stored.items()}
            fresh = [point for point in fresh if point.generation >= highest.get(point.episode_id, point.generation)]
            self._touch(point.episode_id for point in fresh)
            written: set[UUID] = set()
            for generation, group in p.by_generation(fresh).items():
                ids = [self._id(point) for point in group]
                written.update(ids)
                rows = [
                    edge.Point(point_id, engine.vectors(point.dense, point.sparse), p.payload(point))
                    for point_id, point in zip(ids, group, strict=True)
                ]
                condition = engine.older_than(generation)
                shard.update(edge.UpdateOperation.upsert_points(rows, condition=condition))
            current = {point.episode_id: point.generation for point in fresh}
            stale = [
                point_id
                for episode_id, generation in current.items()
                for point_id, stored_generation in stored.get(episode_id, ())
                if stored_generation < generation and point_id not in written
            ]
            if stale:
                shard.update(edge.UpdateOperation.delete_points(list[Any](stale)))

    def change(self, changes: Sequence[PointChange]) -> None:
        if not changes:
            return
        with self._write, translated("changing points"):
            shard = self._writable()
            room.need(self._directory, room.TO_WRITE, "changing points")
            self._touch(change.episode_id for change in changes)
            moved = [change for change in changes if change.dense or change.sparse]
            stored = self._stored([change.episode_id for change in moved])
            vectors = []
            for change in moved:
                named = engine.vectors(change.dense, change.sparse)
                vectors += [edge.PointVectors(point_id, named) for point_id, _ in stored.get(change.episode_id, ())]
            if vectors:
                shard.update(edge.UpdateOperation.update_vectors(vectors))
            # By filter: looking the points up first costs as much as changing them.
            for changed, episode_ids in p.by_payload(changes):
                which = engine.any_of(p.EPISODE, episode_ids)
                shard.update(edge.UpdateOperation.set_payload_by_filter(which, changed))

    def delete(self, episode_ids: Sequence[str]) -> int:
        if not episode_ids or self._readable() is None:
            return 0
        with self._write, translated("deleting points"):
            ids = [point_id for rows in self._stored(episode_ids).values() for point_id, _ in rows]
            self._delete(episode_ids, ids)
            return len(ids)

    # -- to and from another tier

    def read(self, episode_ids: Sequence[str]) -> list[edge.Record]:
        with translated("reading points"):
            return self._scroll(list(dict.fromkeys(episode_ids)), True, True) if episode_ids else []

    def write(self, points: Sequence[edge.Record]) -> None:
        by_generation: dict[int, list[edge.Record]] = {}
        for record in points:
            by_generation.setdefault(engine.whole(record.payload, p.GENERATION), []).append(record)
        with self._write, translated("writing points"):
            room.need(self._directory, room.TO_WRITE, "writing points")
            self._touch(engine.text(record.payload, p.EPISODE) for record in points)
            for generation, group in by_generation.items():
                rows = [edge.Point(record.id, engine.known(record), record.payload) for record in group]
                condition = engine.older_than(generation)
                self._writable().update(edge.UpdateOperation.upsert_points(rows, condition=condition))

    def discard(self, generations: Mapping[str, int]) -> None:
        if not generations or self._readable() is None:
            return
        with self._write, translated("deleting points"):
            self._delete(
                generations,
                [
                    point_id
                    for episode_id, rows in self._stored(list(generations)).items()
                    for point_id, generation in rows
                    if generation <= generations[episode_id]
                ],
            )

    def _delete(self, episode_ids: Iterable[str], point_ids: Sequence[UUID]) -> None:
        if point_ids:
            room.need(self._directory, room.TO_DELETE, "deleting points")
            self._touch(episode_ids)
            self._writable().update(edge.UpdateOperation.delete_points(list[Any](point_ids)))

    # -- reading

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        shard = self._readable()
        if shard is None:
            return [[] for _ in searches]
        with translated("searching"):
            return [self._search(shard, search) for search in searches]

    def _search(self, shard: edge.EdgeShard, search: Search) -> list[Hit]:
        if isinstance(search.vector, SparseVector) and not len(search.vector.indices):
            return []
        points = shard.info().points_count or 0
        compressed = points >= engine.COMPRESSED_FROM and not search.exact
        # Checking a point costs ten times what scoring it does: what most points meet is looked at afterwards.
        share, before, after = self._split(shard, p.conditions(search.where), points)
        fields = [p.EPISODE, p.WINDOW, *(term.field for term in after)]
        wanted = int(search.limit / share) + MARGIN if after else search.limit
        condition = engine.filtered(before)
        while True:
            found = shard.query(engine.query(search, wanted, condition, fields, compressed=compressed))
            scored = []
            for hit in found:
                payload = hit.payload or {}  # read once: every reading makes a dictionary
                if not after or engine.meets(payload, after):
                    scored.append((payload[p.EPISODE], payload[p.WINDOW], hit.score))
            hits = p.best_windows(scored, search.limit)
            # Windows of one episode crowd each other out: ask for more points until there are enough episodes.
            if len(hits) >= search.limit or len(found) < wanted:
                return hits
            wanted *= 4

    @staticmethod
    def _split(shard: edge.EdgeShard, terms: list[p.Term], points: int) -> tuple[float, list[p.Term], list[p.Term]]:
        """The share that meets what most points meet, the conditions to filter by, and those to look at afterwards."""
        share, before, after = 1.0, list[p.Term](), list[p.Term]()
        for term in terms:
            if isinstance(term, p.AnyOf) and term.field == p.EPISODE:
                before.append(term)
                continue
            meeting = shard.count(edge.CountRequest(exact=False, filter=engine.filtered([term]))) / max(points, 1)
            if meeting >= MOST:
                after.append(term)
                share *= min(meeting, 1.0)
            else:
                before.append(term)
        return share, before, after

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        with translated("reading generations"):
            stored = self._stored(episode_ids)
        return {key: (max(g for _, g in rows), len(rows)) for key, rows in stored.items()}

    def vectors(self, episode_ids: Sequence[str]) -> list[StoredVector]:
        if not episode_ids or self._collection is None:
            return []
        with translated("reading vectors"):
            owners: list[str] = []
            rows: list[bytes] = []
            dimension = self._collection.fingerprint.dimension
            packed = Struct(f"{dimension}f")
            for record in self._scroll(list(episode_ids), [p.EPISODE], [CONTENT]):
                vector = engine.dense(record, CONTENT)
                if vector is not None:
                    owners.append(engine.text(record.payload, p.EPISODE))
                    rows.append(packed.pack(*vector))  # numpy takes three times as long over a list
            matrix = np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), dimension)
        self._read += len(rows)
        if self._read >= READ_AND_RELEASED:
            self._read = 0
            engine.release_pages(self._collection.shard)
        return p.mean_vectors(episode_ids, owners, matrix)

    def pieces(self, episode_ids: Sequence[str]) -> dict[str, bytes]:
        if not episode_ids:
            return {}
        with translated("reading word pieces"):
            records = self._scroll(list(episode_ids), [p.EPISODE, p.PIECES], False)
        return {engine.text(r.payload, p.EPISODE): kept for r in records if (kept := p.pieces(r.payload))}

    def walk(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[tuple[str, int]], str | None]:
        shard = self._readable()
        if shard is None:
            return [], None
        with translated("reading points"):
            records, following = shard.scroll(
                edge.ScrollRequest(
                    offset=None if after is None else UUID(after),
                    limit=limit,
                    with_payload=[p.EPISODE, p.WINDOW],
                    with_vector=False,
                )
            )
        rows = [
            (engine.text(record.payload, p.EPISODE), engine.whole(record.payload, p.WINDOW))
            for record in records
            if record.payload and p.EPISODE in record.payload
        ]
        return rows, None if following is None else str(following)

    def count(self, where: Where | None = None, *, exact: bool = True) -> int:
        shard = self._readable()
        if shard is None:
            return 0
        condition = engine.filtered(p.conditions(where)) if where is not None else None
        with translated("counting"):
            if condition is None:
                centroids = engine.any_of(p.KIND, [p.CENTROID_KIND])
                return shard.count(edge.CountRequest()) - shard.count(edge.CountRequest(filter=centroids))
            return shard.count(edge.CountRequest(exact=exact, filter=condition))

    def info(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {"backend": "qdrant-edge", "points": self.count()}
        shard = self._readable()
        if shard is not None and self._collection is not None:
            with translated("reading its state"):
                state = shard.info()
            facts |= {
                "model": self._collection.fingerprint.model,
                "segments": state.segments_count,
                "indexed_vectors": state.indexed_vectors_count,
            }
        return facts

    # -- centroids

    def put_centroids(self, centroids: Sequence[Centroid]) -> None:
        if not centroids:
            return
        rows = [
            edge.Point(
                p.centroid_id(self._namespace, c.session_id, c.run_id, c.cluster_id),
                {},
                p.centroid_payload(c),
            )
            for c in centroids
        ]
        with self._write, translated("writing centroids"):
            room.need(self._directory, room.TO_WRITE, "writing centroids")
            self._touch_centroids()
            self._writable().update(edge.UpdateOperation.upsert_points(rows))

    def centroids(self, session_id: str, run_id: str) -> list[Centroid]:
        shard = self._readable()
        if shard is None:
            return []
        of_run = edge.Filter(
            must=[
                edge.FieldCondition(p.CENTROID_SESSION, match=edge.MatchAny([p.digest(session_id)])),
                edge.FieldCondition(p.CENTROID_RUN, match=edge.MatchAny([run_id])),
            ]
        )
        with translated("reading centroids"):
            records, _ = shard.scroll(
                edge.ScrollRequest(limit=1_000_000, filter=of_run, with_payload=True, with_vector=False)
            )
            return p.centroids_of((record.payload for record in records), session_id, run_id)

    def drop_centroids(self, session_id: str, *, keep_runs: Sequence[str]) -> None:
        if self._readable() is None:
            return
        gone = edge.Filter(
            must=[edge.FieldCondition(p.CENTROID_SESSION, match=edge.MatchAny([p.digest(session_id)]))],
            must_not=[edge.FieldCondition(p.CENTROID_RUN, match=edge.MatchAny(list(keep_runs)))] if keep_runs else None,
        )
        with self._write, translated("dropping centroids"):
            room.need(self._directory, room.TO_DELETE, "dropping centroids")
            self._touch_centroids()
            self._writable().update(edge.UpdateOperation.delete_points_by_filter(gone))

    def walk_centroids(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[str], str | None]:
        shard = self._readable()
        if shard is None:
            return [], None
        with translated("reading centroids"):
            records, following = shard.scroll(
                edge.ScrollRequest(
                    offset=None if after is None else UUID(after),
                    limit=limit,
                    filter=engine.any_of(p.KIND, [p.CENTROID_KIND]),
                    with_payload=[p.CENTROID_RUN],
                    with_vector=False,
                )
            )
        return [engine.text(record.payload, p.CENTROID_RUN) for record in records], (
            None if following is None else str(following)
        )

    def drop_runs(self, run_ids: Sequence[str]) -> None:
        if not run_ids or self._readable() is None:
            return
        with self._write, translated("dropping centroids"):
            room.need(self._directory, room.TO_DELETE, "dropping centroids")
            self._touch_centroids()
            gone = engine.any_of(p.CENTROID_RUN, list(run_ids))
            self._writable().update(edge.UpdateOperation.delete_points_by_filter(gone))

    # -- erasure

    def scrub(self) -> None:
        """Copy what lives into a new shard and remove the old one with its log.

        Takes about 0.5 ms a point and the disk space of a second shard. Reading and writing go on meanwhile; points
        written while it runs are copied once more at the end. Closing ends it, and leaves the old shard.
        """
        with self._scrubbing, translated("scrubbing"):
            with self._write:
                if self._readable() is None or self._collection is None:
                    return
                old, fresh = self._writable(), self._collection.next()
                room.need(self._directory, room.TO_WRITE + room.size(self._collection.shard), "scrubbing")
                self._touched = Touched()
            try:
                new = fresh.make(self._go_on)
                rewrite.copy(old, new, self._go_on)
                while len(self._touched.episodes) > rewrite.PAGE:
                    with self._write:
                        touched, self._touched = self._touched, Touched()
                    rewrite.mirror(old, new, touched, self._go_on)
                with self._write:
                    self._writable()  # closed meanwhile: the old shard stays
                    rewrite.mirror(old, new, self._touched, self._go_on)
                    new.flush()
                    fresh.publish()
                    # Readers that are in the middle of a scroll keep the old shard open until they are through.
                    self._shard, self._collection = new, fresh
            finally:
                with self._write:
                    self._touched = None
                if self._collection is not fresh:
                    fresh.discard()

    def _go_on(self) -> None:
        if self._leaving:
            raise StoreUnavailable("the vector store is being closed", hint="the next process scrubs it")

    def _touch(self, episode_ids: Iterable[str]) -> None:
        if self._touched is not None:
            self._touched.episodes.update(episode_ids)

    def _touch_centroids(self) -> None:
        if self._touched is not None:
            self._touched.centroids = True

    # -- helpers

    def _id(self, point: Point) -> UUID:
        return p.point_id(self._namespace, point.episode_id, point.window)

    def _stored(self, episode_ids: Sequence[str]) -> dict[str, list[tuple[UUID, int]]]:
        """(point id, generation) of every point of the episodes."""
        if not episode_ids:
            return {}
        stored: dict[str, list[tuple[UUID, int]]] = {}
        for record in self._scroll(list(dict.fromkeys(episode_ids)), [p.EPISODE, p.GENERATION], False):
            row = (engine.uuid_of(record.id), engine.whole(record.payload, p.GENERATION))
            stored.setdefault(engine.text(record.payload, p.EPISODE), []).append(row)
        return stored

    def _scroll(self, episode_ids: list[str], fields: list[str] | bool, vectors: list[str] | bool) -> list[edge.Record]:
        shard = self._readable()
        if shard is None:
            return []
        condition = engine.any_of(p.EPISODE, episode_ids)
        found: list[edge.Record] = []
        offset = None
        while True:
            records, offset = shard.scroll(
                edge.ScrollRequest(
                    offset=offset, limit=PAGE, filter=condition, with_payload=fields, with_vector=vectors
                )
            )
            found += records
            if offset is None:
                return found
