"""The vector port on a qdrant-edge shard of this process: what its owner runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import collection, engine
from ww_core.stores.embedded.vectors.engine import translated
from ww_core.stores.ports import (
    CENTROID,
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


class Shard:
    """A VectorStore on the collection in ``directory``. Thread-safe; one per directory on the machine.

    Without a collection reads answer that there is nothing, and writes raise ConfigurationError.
    """

    def __init__(self, directory: Path, *, namespace: str) -> None:
        self._directory = directory
        self._namespace = namespace
        self._write = threading.RLock()
        self._closed = False
        self._shard: edge.EdgeShard | None = None
        self._fingerprint: Fingerprint | None = None
        found = collection.find(directory)
        if found is not None:
            self._fingerprint = found
            with translated("opening it"):
                self._shard = edge.EdgeShard.load(str(collection.path(directory, found)))

    # -- the collection

    def ping(self) -> None:
        return None

    def close(self) -> None:
        with self._write:
            self._closed = True
            shard, self._shard = self._shard, None
            if shard is not None:
                with translated("closing it"):
                    shard.flush()
                    shard.close()

    def ensure(self, fingerprint: Fingerprint) -> None:
        with self._write:
            if self._fingerprint is not None:
                if self._fingerprint != fingerprint:
                    raise collection.another_model(self._fingerprint, fingerprint, self._directory)
                return
            with translated("creating the collection"):
                self._shard = collection.create(self._directory, fingerprint)
            self._fingerprint = fingerprint

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
            stored = self._stored([point.episode_id for point in fresh])
            highest = {key: max(g for _, g in rows) for key, rows in stored.items()}
            fresh = [point for point in fresh if point.generation >= highest.get(point.episode_id, point.generation)]
            for generation, group in p.by_generation(fresh).items():
                rows = [
                    edge.Point(self._id(point), engine.vectors(point.dense, point.sparse), p.payload(point))
                    for point in group
                ]
                condition = engine.older_than(generation)
                shard.update(edge.UpdateOperation.upsert_points(rows, condition=condition))
            written = {self._id(point) for point in fresh}
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
            stored = self._stored([change.episode_id for change in changes])
            vectors = []
            payloads: dict[str, tuple[dict[str, Any], list[UUID]]] = {}
            for change in changes:
                ids = [point_id for point_id, _ in stored.get(change.episode_id, ())]
                named = engine.vectors(change.dense, change.sparse)
                if named:
                    vectors += [edge.PointVectors(point_id, named) for point_id in ids]
                changed = p.changed_payload(change)
                if changed:
                    payloads.setdefault(repr(sorted(changed.items())), (changed, []))[1].extend(ids)
            if vectors:
                shard.update(edge.UpdateOperation.update_vectors(vectors))
            for changed, ids in payloads.values():
                if ids:
                    shard.update(edge.UpdateOperation.set_payload(list[Any](ids), changed))

    def delete(self, episode_ids: Sequence[str]) -> int:
        if not episode_ids or self._readable() is None:
            return 0
        with self._write, translated("deleting points"):
            ids = [point_id for rows in self._stored(episode_ids).values() for point_id, _ in rows]
            if ids:
                self._writable().update(edge.UpdateOperation.delete_points(list[Any](ids)))
            return len(ids)

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
        # Windows of one episode crowd each other out: ask for more points until there are enough episodes.
        wanted = search.limit
        while True:
            found = shard.query(engine.query(search, wanted))
            scored = [(_text(hit.payload, p.EPISODE), _whole(hit.payload, p.WINDOW), hit.score) for hit in found]
            hits = p.best_windows(scored, search.limit)
            if len(hits) >= search.limit or len(found) < wanted:
                return hits
            wanted *= 4

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        with translated("reading generations"):
            stored = self._stored(episode_ids)
        return {key: (max(g for _, g in rows), len(rows)) for key, rows in stored.items()}

    def vectors(self, episode_ids: Sequence[str]) -> list[StoredVector]:
        if not episode_ids or self._fingerprint is None:
            return []
        with translated("reading vectors"):
            owners: list[str] = []
            rows: list[Any] = []
            for record in self._scroll(list(episode_ids), [p.EPISODE], [CONTENT]):
                vector = engine.dense(record, CONTENT)
                if vector is not None:
                    owners.append(_text(record.payload, p.EPISODE))
                    rows.append(vector)
            matrix = np.array(rows, np.float32).reshape(len(rows), self._fingerprint.dimension)
        return p.mean_vectors(episode_ids, owners, matrix)

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
            (_text(record.payload, p.EPISODE), _whole(record.payload, p.WINDOW))
            for record in records
            if record.payload and p.EPISODE in record.payload
        ]
        return rows, None if following is None else str(following)

    def count(self, where: Where | None = None) -> int:
        shard = self._readable()
        if shard is None:
            return 0
        condition = engine.filtered(where) if where is not None else None
        with translated("counting"):
            if condition is None:
                centroids = engine.any_of(p.KIND, [p.CENTROID_KIND])
                return shard.count(edge.CountRequest()) - shard.count(edge.CountRequest(filter=centroids))
            return shard.count(edge.CountRequest(filter=condition))

    def info(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {"backend": "qdrant-edge", "points": self.count()}
        shard = self._readable()
        if shard is not None and self._fingerprint is not None:
            with translated("reading its state"):
                state = shard.info()
            facts |= {
                "model": self._fingerprint.model,
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
                engine.vectors({CENTROID: c.vector}, {}),
                p.centroid_payload(c),
            )
            for c in centroids
        ]
        with self._write, translated("writing centroids"):
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
                edge.ScrollRequest(limit=1_000_000, filter=of_run, with_payload=True, with_vector=[CENTROID])
            )
            return sorted(
                (
                    Centroid(
                        cluster_id=_text(record.payload, p.CENTROID_CLUSTER),
                        session_id=session_id,
                        run_id=run_id,
                        vector=np.array(engine.dense(record, CENTROID), np.float32),
                        radius=float((record.payload or {})[p.CENTROID_RADIUS]),
                    )
                    for record in records
                ),
                key=lambda centroid: centroid.cluster_id,
            )

    def drop_centroids(self, session_id: str, *, keep_runs: Sequence[str]) -> None:
        if self._readable() is None:
            return
        gone = edge.Filter(
            must=[edge.FieldCondition(p.CENTROID_SESSION, match=edge.MatchAny([p.digest(session_id)]))],
            must_not=[edge.FieldCondition(p.CENTROID_RUN, match=edge.MatchAny(list(keep_runs)))] if keep_runs else None,
        )
        with self._write, translated("dropping centroids"):
            self._writable().update(edge.UpdateOperation.delete_points_by_filter(gone))

    # -- erasure

    def scrub(self) -> None:
        if self._readable() is None:
            return
        with self._write, translated("scrubbing"):
            self._writable().flush()

    # -- helpers

    def _id(self, point: Point) -> UUID:
        return p.point_id(self._namespace, point.episode_id, point.window)

    def _stored(self, episode_ids: Sequence[str]) -> dict[str, list[tuple[UUID, int]]]:
        """(point id, generation) of every point of the episodes."""
        if not episode_ids:
            return {}
        stored: dict[str, list[tuple[UUID, int]]] = {}
        for record in self._scroll(list(dict.fromkeys(episode_ids)), [p.EPISODE, p.GENERATION], False):
            row = (engine.uuid_of(record.id), _whole(record.payload, p.GENERATION))
            stored.setdefault(_text(record.payload, p.EPISODE), []).append(row)
        return stored

    def _scroll(self, episode_ids: list[str], fields: list[str], vectors: list[str] | bool) -> list[edge.Record]:
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


def _text(payload: Mapping[str, Any] | None, key: str) -> str:
    return str((payload or {})[key])


def _whole(payload: Mapping[str, Any] | None, key: str) -> int:
    return int((payload or {})[key])
