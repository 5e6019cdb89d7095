"""The centroids of runs in a qdrant-edge shard."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import qdrant_edge as edge

from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import engine, room
from ww_core.stores.embedded.vectors.engine import translated
from ww_core.stores.embedded.vectors.open_shard import OpenShard
from ww_core.stores.ports import Centroid


class Centroids(OpenShard):
    """Points of their own kind, read by run and never searched."""

    def put_centroids(self, centroids: Sequence[Centroid]) -> None:
        if not centroids:
            return
        rows = [
            edge.Point(
                p.centroid_id(self._namespace, c.session_id, c.attempt, c.cluster_id),
                {},
                p.centroid_payload(c),
            )
            for c in centroids
        ]
        with self._write, translated("writing centroids"):
            room.need(self._directory, room.TO_WRITE, "writing centroids")
            self._touch_centroids()
            self._writable().update(edge.UpdateOperation.upsert_points(rows))
            self._bound_log()

    def centroids(self, session_id: str, attempt: str) -> list[Centroid]:
        shard = self._readable()
        if shard is None:
            return []
        of_run = edge.Filter(
            must=[
                edge.FieldCondition(p.CENTROID_SESSION, match=edge.MatchAny([p.digest(session_id)])),
                edge.FieldCondition(p.CENTROID_RUN, match=edge.MatchAny([attempt])),
            ]
        )
        with translated("reading centroids"):
            records, _ = shard.scroll(
                edge.ScrollRequest(limit=1_000_000, filter=of_run, with_payload=True, with_vector=False)
            )
            return p.centroids_of((record.payload for record in records), session_id, attempt)

    def drop_centroids(self, session_id: str, *, keep: Sequence[str]) -> None:
        if self._readable() is None:
            return
        gone = edge.Filter(
            must=[edge.FieldCondition(p.CENTROID_SESSION, match=edge.MatchAny([p.digest(session_id)]))],
            must_not=[edge.FieldCondition(p.CENTROID_RUN, match=edge.MatchAny(list(keep)))] if keep else None,
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

    def drop_attempts(self, attempts: Sequence[str]) -> None:
        if not attempts or self._readable() is None:
            return
        with self._write, translated("dropping centroids"):
            room.need(self._directory, room.TO_DELETE, "dropping centroids")
            self._touch_centroids()
            gone = engine.any_of(p.CENTROID_RUN, list(attempts))
            self._writable().update(edge.UpdateOperation.delete_points_by_filter(gone))
