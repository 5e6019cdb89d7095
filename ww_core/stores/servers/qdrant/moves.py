"""Whole points on their way between two collections on a Qdrant server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qdrant_client import models

from ww_core.stores import points as p
from ww_core.stores.servers.qdrant import collection, shapes
from ww_core.stores.servers.qdrant.open_collection import OpenCollection


class Moves(OpenCollection):
    """What a Tier has beyond a VectorStore."""

    def read(self, episode_ids: Sequence[str]) -> list[models.Record]:
        with self._using("reading points") as client:
            name = self._find(client)
            if name is None or not episode_ids:
                return []
            these = models.Filter(must=[shapes.any_of(p.EPISODE, list(dict.fromkeys(episode_ids)))])
            return list(collection.scroll(client, name, these, True, True))

    def write(self, points: Sequence[models.Record]) -> None:
        with self._using("writing points") as client:
            name = self._writable(client)
            for (key, generation), records in collection.grouped(points, _shard_and_generation):
                rows = [
                    models.PointStruct(id=record.id, vector=record.vector or {}, payload=record.payload)
                    for record in records
                ]
                condition = models.Filter(must=[shapes.older_than(generation)])
                client.upsert(name, rows, wait=True, update_filter=condition, shard_key_selector=key)

    def discard(self, generations: Mapping[str, int]) -> None:
        with self._using("deleting points") as client:
            name = self._find(client)
            if name is None or not generations:
                return
            gone: dict[tuple[str | None, int], list[str]] = {}
            for episode_id, rows in self._stored(client, name, generations).items():
                highest = generations[episode_id]
                for point_id, generation, key in rows:
                    if generation <= highest:
                        gone.setdefault((key, highest), []).append(point_id)
            self._delete_older(client, name, {(key, highest + 1): ids for (key, highest), ids in gone.items()})


def _shard_and_generation(record: models.Record) -> tuple[str | None, int]:
    key = None if record.shard_key is None else str(record.shard_key)
    return key, int((record.payload or {})[p.GENERATION])
