"""Whole points on their way between two qdrant-edge shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import qdrant_edge as edge

from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import engine, room
from ww_core.stores.embedded.vectors.engine import translated
from ww_core.stores.embedded.vectors.open_shard import AT_ONCE, OpenShard


class Moves(OpenShard):
    """What a Tier has beyond a VectorStore."""

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
                condition = engine.older_than(generation)
                for start in range(0, len(group), AT_ONCE):
                    part = group[start : start + AT_ONCE]
                    rows = [edge.Point(record.id, engine.known(record), record.payload) for record in part]
                    self._writable().update(edge.UpdateOperation.upsert_points(rows, condition=condition))
            self._bound_log()

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
