"""The centroids of runs in a collection on a Qdrant server."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_client import models

from ww_core.stores import points as p
from ww_core.stores.ports import Centroid
from ww_core.stores.servers.qdrant import collection, shapes
from ww_core.stores.servers.qdrant.open_collection import OpenCollection


class Centroids(OpenCollection):
    """Points of their own kind, read by run and never searched."""

    def put_centroids(self, centroids: Sequence[Centroid]) -> None:
        if not centroids:
            return
        with self._using("writing centroids") as client:
            name = self._writable(client)
            for key, members in collection.by_shard(self._settings, centroids):
                rows = [
                    models.PointStruct(
                        id=str(p.centroid_id(self._namespace, c.session_id, c.attempt, c.cluster_id)),
                        vector={},
                        payload=p.centroid_payload(c),
                    )
                    for c in members
                ]
                client.upsert(name, rows, wait=True, shard_key_selector=key)

    def centroids(self, session_id: str, attempt: str) -> list[Centroid]:
        of_run = models.Filter(
            must=[
                shapes.any_of(p.CENTROID_SESSION, [p.digest(session_id)]),
                shapes.any_of(p.CENTROID_RUN, [attempt]),
            ]
        )
        with self._using("reading centroids") as client:
            name = self._find(client)
            if name is None:
                return []
            records = collection.scroll(client, name, of_run, True, False)
            return p.centroids_of((record.payload for record in records), session_id, attempt)

    def drop_centroids(self, session_id: str, *, keep: Sequence[str]) -> None:
        gone = models.Filter(
            must=[shapes.any_of(p.CENTROID_SESSION, [p.digest(session_id)])],
            must_not=[shapes.any_of(p.CENTROID_RUN, keep)] if keep else None,
        )
        with self._using("dropping centroids") as client:
            name = self._find(client)
            if name is not None:
                key = collection.shard_of(self._settings, session_id)
                client.delete(name, models.FilterSelector(filter=gone), wait=True, shard_key_selector=key)

    def walk_centroids(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[str], str | None]:
        every = models.Filter(must=[shapes.any_of(p.KIND, [p.CENTROID_KIND])])
        with self._using("reading centroids") as client:
            name = self._find(client)
            if name is None:
                return [], None
            records, following = client.scroll(
                name, scroll_filter=every, offset=after, limit=limit, with_payload=[p.CENTROID_RUN], with_vectors=False
            )
        return [str((record.payload or {})[p.CENTROID_RUN]) for record in records], (
            None if following is None else str(following)
        )

    def drop_attempts(self, attempts: Sequence[str]) -> None:
        if not attempts:
            return
        gone = models.Filter(must=[shapes.any_of(p.CENTROID_RUN, attempts)])
        with self._using("dropping centroids") as client:
            name = self._find(client)
            if name is not None:
                keys = collection.every_shard(self._settings)  # which of them held the session is not known
                client.delete(name, models.FilterSelector(filter=gone), wait=True, shard_key_selector=keys)
