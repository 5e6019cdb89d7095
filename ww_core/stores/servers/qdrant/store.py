"""The vector port on a Qdrant server, through qdrant-client."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from ww_core.config import Settings
from ww_core.stores import points as p
from ww_core.stores.ports import CONTENT, Hit, Point, PointChange, Search, SparseVector, StoredVectors, Where
from ww_core.stores.servers.qdrant import collection, shapes
from ww_core.stores.servers.qdrant.centroids import Centroids
from ww_core.stores.servers.qdrant.moves import Moves
from ww_core.stores.tiers import TieredVectors


class QdrantVectorStore(TieredVectors[models.Record]):
    """A VectorStore on the server that the settings name."""

    _hot: QdrantCollection
    _cold: QdrantCollection

    def __init__(self, settings: Settings) -> None:
        hot, cold = QdrantCollection(settings), QdrantCollection(settings, cold=True)
        super().__init__(hot, cold, archive_cold=settings.archive_cold, writing=nullcontext)

    def update_queue(self) -> float:
        """Updates that the server has taken and not carried out yet; nan where it does not tell. Raises
        StoreUnavailable."""
        told = [self._hot.update_queue(), self._cold.update_queue() if self._has_cold() else None]
        waiting = [n for n in told if n is not None]
        return float(sum(waiting)) if waiting else math.nan

    def drop(self) -> None:
        """Remove both collections with everything in them; ``ensure`` makes them anew."""
        self._cold.drop()
        self._hot.drop()
        self._there, self._fingerprint = False, None


class QdrantCollection(Centroids, Moves):
    """A Tier in one collection, ``{namespace}_{fingerprint digest}``, with ``_cold`` behind it where that is archived.

    Several processes write at once: an upsert is conditional on the stored generation point by point, and every writer
    removes what it finds of older generations afterwards, its own late windows too.
    """

    # -- writing

    def upsert(self, points: Sequence[Point]) -> None:
        fresh = p.newest(points)
        if not fresh:
            return
        with self._using("writing points") as client:
            name = self._writable(client)
            for generation, group in p.by_generation(fresh).items():
                condition = models.Filter(must=[shapes.older_than(generation)])
                for key, members in collection.by_shard(self._settings, group):
                    rows = [
                        models.PointStruct(
                            id=str(self._id(point)),
                            vector=shapes.vectors(point.dense, point.sparse),
                            payload=p.payload(point),
                        )
                        for point in sorted(members, key=lambda point: (point.episode_id, point.window))
                    ]
                    client.upsert(name, rows, wait=True, update_filter=condition, shard_key_selector=key)
            self._drop_older(client, name, [point.episode_id for point in fresh])

    def _drop_older(self, client: QdrantClient, name: str, episode_ids: Sequence[str]) -> None:
        """Remove points of the episodes whose generation is not their episode's highest."""
        stale: dict[tuple[str | None, int], list[str]] = {}
        for rows in self._stored(client, name, episode_ids).values():
            highest = max(generation for _, generation, _ in rows)
            for point_id, generation, key in rows:
                if generation < highest:
                    stale.setdefault((key, highest), []).append(point_id)
        self._delete_older(client, name, stale)

    def change(self, changes: Sequence[PointChange]) -> None:
        if not changes:
            return
        with self._using("changing points") as client:
            name = self._writable(client)
            stored = self._stored(client, name, [change.episode_id for change in changes])
            vectors: dict[str | None, list[models.PointVectors]] = {}
            payloads: dict[tuple[str | None, str], tuple[dict[str, Any], list[str]]] = {}
            for change in changes:
                named = shapes.vectors(change.dense, change.sparse)
                changed = p.changed_payload(change)
                for point_id, _, key in stored.get(change.episode_id, ()):
                    if named:
                        vectors.setdefault(key, []).append(models.PointVectors(id=point_id, vector=named))
                    if changed:
                        group = (key, repr(sorted(changed.items())))
                        payloads.setdefault(group, (changed, []))[1].append(point_id)
            # By filter and on what exists: a point that was deleted meanwhile must stay absent, not fail the rest.
            for key, rows in vectors.items():
                self._update_vectors(client, name, rows, key)
            for (key, _), (changed, ids) in payloads.items():
                these = models.Filter(must=[models.HasIdCondition(has_id=list[Any](ids))])
                client.set_payload(name, changed, points=these, wait=True, shard_key_selector=key)

    def set_cells(self, episode_ids: Sequence[str], cells: tuple[str, ...]) -> None:
        if not episode_ids:
            return
        with self._using("changing points") as client:
            these = models.Filter(must=[shapes.any_of(p.EPISODE, list(episode_ids))])
            every = collection.every_shard(self._settings)
            client.set_payload(
                self._writable(client), {p.CELLS: p.cells(cells)}, points=these, wait=True, shard_key_selector=every
            )

    def _update_vectors(
        self, client: QdrantClient, name: str, rows: list[models.PointVectors], key: str | None
    ) -> None:
        try:
            client.update_vectors(name, rows, wait=True, shard_key_selector=key)
        except Exception as error:  # each transport has its own error for a missing point
            if "No point with id" not in str(error) and "not found" not in str(error).lower():
                raise
            ids = [row.id for row in rows]
            alive = {r.id for r in client.retrieve(name, ids, with_payload=False, shard_key_selector=key)}
            left = [row for row in rows if row.id in alive]
            if left and len(left) < len(rows):
                self._update_vectors(client, name, left, key)

    def delete(self, episode_ids: Sequence[str]) -> int:
        if not episode_ids:
            return 0
        with self._using("deleting points") as client:
            name = self._find(client)
            if name is None:
                return 0
            rows = [row for found in self._stored(client, name, episode_ids).values() for row in found]
            for key, members in collection.grouped(rows, lambda row: row[2]):
                ids = models.PointIdsList(points=[point_id for point_id, _, _ in members])
                client.delete(name, ids, wait=True, shard_key_selector=key)
            return len(rows)

    # -- reading

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        found: list[list[Hit]] = [[] for _ in searches]
        with self._using("searching") as client:
            name = self._find(client)
            if name is None:
                return found
            # Windows of one episode crowd each other out: ask for more points until there are enough episodes.
            wanted = {
                row: search.limit
                for row, search in enumerate(searches)
                if not isinstance(search.vector, SparseVector) or len(search.vector.indices)
            }
            while wanted:
                requests = [
                    shapes.query(
                        searches[row],
                        limit,
                        local=self._local,
                        shard_keys=collection.shards_of(self._settings, searches[row].where.sessions),
                    )
                    for row, limit in wanted.items()
                ]
                more: dict[int, int] = {}
                responses = client.query_batch_points(name, requests)
                for (row, limit), response in zip(wanted.items(), responses, strict=True):
                    scored = [
                        (str(hit.payload[p.EPISODE]), int(hit.payload[p.WINDOW]), float(hit.score))
                        for hit in response.points
                        if hit.payload is not None
                    ]
                    found[row] = p.best_windows(scored, searches[row].limit)
                    if len(found[row]) < searches[row].limit and len(response.points) >= limit:
                        more[row] = limit * 4
                wanted = more
        return found

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        with self._using("reading generations") as client:
            name = self._find(client)
            if name is None:
                return {}
            stored = self._stored(client, name, episode_ids)
        return {key: (max(g for _, g, _ in rows), len(rows)) for key, rows in stored.items()}

    def vectors(self, episode_ids: Sequence[str], *, single: bool = False) -> StoredVectors:
        owners: list[str] = []
        rows: list[list[float]] = []
        with self._using("reading vectors") as client:
            name = self._find(client)
            if name is None or not episode_ids:
                return StoredVectors.none()
            these = models.Filter(must=[shapes.any_of(p.EPISODE, list(dict.fromkeys(episode_ids)))])
            for record in collection.scroll(client, name, these, [p.EPISODE], [CONTENT]):
                vector = shapes.dense(record, CONTENT)
                if vector is not None and record.payload is not None:
                    owners.append(str(record.payload[p.EPISODE]))
                    rows.append(vector)
        return p.mean_vectors(episode_ids, owners, np.array(rows, np.float32)) if rows else StoredVectors.none()

    def pieces(self, episode_ids: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        with self._using("reading word pieces") as client:
            name = self._find(client)
            if name is None or not episode_ids:
                return found
            these = models.Filter(must=[shapes.any_of(p.EPISODE, list(dict.fromkeys(episode_ids)))])
            for record in collection.scroll(client, name, these, [p.EPISODE, p.PIECES], False):
                if kept := p.pieces(record.payload):
                    found[str((record.payload or {})[p.EPISODE])] = kept
        return found

    def walk(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[tuple[str, int]], str | None]:
        with self._using("reading points") as client:
            name = self._find(client)
            if name is None:
                return [], None
            records, following = client.scroll(
                name, offset=after, limit=limit, with_payload=[p.EPISODE, p.WINDOW], with_vectors=False
            )
        rows = [
            (str(record.payload[p.EPISODE]), int(record.payload[p.WINDOW]))
            for record in records
            if record.payload and p.EPISODE in record.payload
        ]
        return rows, None if following is None else str(following)

    def count(self, where: Where | None = None, *, exact: bool = True) -> int:
        with self._using("counting") as client:
            name = self._find(client)
            if name is None:
                return 0
            condition = shapes.filtered(where) if where is not None else None
            if condition is None:
                condition = models.Filter(must_not=[shapes.any_of(p.KIND, [p.CENTROID_KIND])])
            return client.count(name, count_filter=condition, exact=exact).count

    def info(self) -> Mapping[str, Any]:
        facts: dict[str, Any] = {"backend": "qdrant", "points": self.count()}
        with self._using("reading its state") as client:
            facts["version"] = collection.version(client)
            name = self._find(client)
            if name is not None:
                state = client.get_collection(name)
                facts |= {
                    "collection": name,
                    "status": str(state.status.value),
                    "segments": state.segments_count,
                    "indexed_vectors": state.indexed_vectors_count,
                }
                if (waiting := shapes.waiting(state)) is not None:
                    facts["queue_depth"] = waiting
        return facts

    def update_queue(self) -> int | None:
        """Updates that the server has taken and not carried out yet; None where there is no collection, or the server
        does not tell. Raises StoreUnavailable."""
        with self._using("reading its state") as client:
            name = self._find(client)
            return None if name is None else shapes.waiting(client.get_collection(name))

    def scrub(self) -> None:
        """The server's own optimiser rewrites segments; nothing here can hurry it."""
