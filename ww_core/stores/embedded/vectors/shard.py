"""The vector port on a qdrant-edge shard of this process: what its owner runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import engine, room
from ww_core.stores.embedded.vectors.centroids import Centroids
from ww_core.stores.embedded.vectors.engine import translated
from ww_core.stores.embedded.vectors.moves import Moves
from ww_core.stores.embedded.vectors.open_shard import AT_ONCE
from ww_core.stores.ports import CONTENT, Hit, Point, PointChange, Search, SparseVector, StoredVectors, Where

READ_AND_RELEASED = 50_000
"""Vectors read (of 384 numbers: 77 MB) from which their pages are let go of."""
MANY = 200
"""Points of one call from which it is taken for a part of a pass over all of them."""
AHEAD_SECONDS = 1.0
"""After searches ended reading ahead it is not begun again for so long: each change costs them a millisecond or two."""
SINGLY = 8
"""Different payloads from which it pays to look at what is there before they are set one by one."""
MOST = 0.5
"""Share of the points above which a condition is applied to what was found instead of before."""
MARGIN = 3.0
"""Standard deviations of what meets such a condition by which more points are asked for than that share suggests."""


class Shard(Centroids, Moves):
    """A Tier on the collection in ``directory``. Thread-safe; one per directory on the machine.

    Without a collection reads answer that there is nothing, and writes raise ConfigurationError. A ``cold`` one leaves
    everything on disk.
    """

    _read_since = 0
    """Vectors read since their pages were let go of."""
    _reads_ahead, _ahead_again = False, 0.0

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
                condition = engine.older_than(generation)
                for start in range(0, len(group), AT_ONCE):
                    part = group[start : start + AT_ONCE]
                    ids = [self._id(point) for point in part]
                    written.update(ids)
                    rows = [
                        edge.Point(point_id, engine.vectors(point.dense, point.sparse), p.payload(point))
                        for point_id, point in zip(ids, part, strict=True)
                    ]
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
            self._bound_log()

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
            for start in range(0, len(vectors), AT_ONCE):
                shard.update(edge.UpdateOperation.update_vectors(vectors[start : start + AT_ONCE]))
            # By filter: looking the points up first costs as much as changing them.
            groups = p.by_payload(changes)
            if len(groups) >= SINGLY:
                groups = self._differing(groups)
            for changed, episode_ids in groups:
                which = engine.any_of(p.EPISODE, episode_ids)
                shard.update(edge.UpdateOperation.set_payload_by_filter(which, changed))
            self._bound_log()

    def set_cells(self, episode_ids: Sequence[str], cells: tuple[str, ...]) -> None:
        if not episode_ids:
            return
        with self._write, translated("changing points"):
            shard = self._writable()
            room.need(self._directory, room.TO_WRITE, "changing points")
            self._touch(episode_ids)
            if len(episode_ids) >= MANY:
                self._read_ahead(wanted=True)
            which = engine.any_of(p.EPISODE, list(episode_ids))
            shard.update(edge.UpdateOperation.set_payload_by_filter(which, {p.CELLS: p.cells(cells)}))
            self._bound_log()

    def _differing(self, groups: list[tuple[dict[str, Any], list[str]]]) -> list[tuple[dict[str, Any], list[str]]]:
        """What of the groups is not so already: the engine sets one payload at a time, and where much changes at once
        (a run taken back, a month archived) it is mostly one field of many, with few values."""
        episode_ids = list(dict.fromkeys(episode_id for _, ids in groups for episode_id in ids))
        fields = sorted({p.EPISODE, *(field for changed, _ in groups for field in changed)})
        return p.by_difference(groups, (record.payload for record in self._scroll(episode_ids, fields, False)))

    def delete(self, episode_ids: Sequence[str]) -> int:
        if not episode_ids or self._readable() is None:
            return 0
        with self._write, translated("deleting points"):
            ids = [point_id for rows in self._stored(episode_ids).values() for point_id, _ in rows]
            self._delete(episode_ids, ids)
            return len(ids)

    # -- reading

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        shard = self._readable()
        if shard is None:
            return [[] for _ in searches]
        self._read_ahead(wanted=False)
        meeting: dict[p.Term, int] = {}
        windows: dict[int, tuple[str, int]] = {}
        first: dict[str, int] = {}
        with translated("searching"):
            points = shard.info().points_count or 0
            found: list[list[Hit]] = []
            for search in searches:
                if isinstance(search.vector, SparseVector) and not len(search.vector.indices):
                    found.append([])
                elif search.where.episode_ids:
                    found.append(self._search_named(shard, search, points, first, windows))
                else:
                    found.append(self._search(shard, search, points, meeting))
            return found

    def _search(self, shard: edge.EdgeShard, search: Search, points: int, meeting: dict[p.Term, int]) -> list[Hit]:
        """``meeting``: how many points about meet a condition, as far as that was asked before."""
        compressed = points >= engine.COMPRESSED_FROM and not search.exact
        # Checking a point costs ten times what scoring it does: what most points meet is looked at afterwards.
        share, before, after = self._split(shard, p.conditions(search.where), points, meeting)
        fields = [p.EPISODE, p.WINDOW, *(term.field for term in after)]
        condition = engine.filtered(before)
        wanted = math.ceil((search.limit + MARGIN * math.sqrt(search.limit * (1 - share))) / share)

        def ask(most: int) -> tuple[list[p.Scored], int]:
            found = shard.query(engine.query(search, most, condition, fields, compressed=compressed))
            scored = []
            for hit in found:
                payload = hit.payload or {}  # read once: every reading makes a dictionary
                if not after or engine.meets(payload, after):
                    scored.append((payload[p.EPISODE], payload[p.WINDOW], hit.score))
            return scored, len(found)

        return _best(ask, wanted, search.limit)

    def _search_named(
        self,
        shard: edge.EdgeShard,
        search: Search,
        points: int,
        first: dict[str, int],
        windows: dict[int, tuple[str, int]],
    ) -> list[Hit]:
        """Among episodes that are named: all conditions are checked first, and what a point is of follows from its id.

        Payloads, which cost more than the scores of so few, are read of windows beyond an episode's first alone, and
        whole vectors, which may lie on the disk, for exact scores alone.
        ``first``: the ids of first windows as far as they were made before; ``windows``: what points are known to be.
        """
        for name in search.where.episode_ids:
            if name not in first:
                first[name] = made = p.first_window(self._namespace, name)
                windows[made] = (name, 0)
        condition = engine.filtered(p.conditions(search.where))
        compressed = points >= engine.COMPRESSED_FROM and not search.exact

        def ask(most: int) -> tuple[list[p.Scored], int]:
            found = shard.query(engine.query(search, most, condition, False, compressed=compressed, rescored=False))
            # by number: a UUID as a key is hashed in Python
            scores = [(engine.number_of(hit.id), hit.score) for hit in found]
            later: list[Any] = [UUID(int=number) for number, _ in scores if number not in windows]
            for record in shard.retrieve(later, with_payload=[p.EPISODE, p.WINDOW], with_vector=False) if later else ():
                name, window = engine.text(record.payload, p.EPISODE), engine.whole(record.payload, p.WINDOW)
                windows[engine.number_of(record.id)] = (name, window)
            # one that is unknown still was removed between the two calls
            scored = [(*known, score) for number, score in scores if (known := windows.get(number)) is not None]
            return scored, len(found)

        return _best(ask, search.limit, search.limit)

    @staticmethod
    def _split(
        shard: edge.EdgeShard, terms: list[p.Term], points: int, meeting: dict[p.Term, int]
    ) -> tuple[float, list[p.Term], list[p.Term]]:
        """The share that meets what most points meet, the conditions to filter by, and those to look at afterwards."""
        share, before, after = 1.0, list[p.Term](), list[p.Term]()
        for term in terms:
            if term not in meeting:
                meeting[term] = shard.count(edge.CountRequest(exact=False, filter=engine.filtered([term])))
            part = meeting[term] / max(points, 1)
            if part >= MOST:
                after.append(term)
                share *= min(part, 1.0)
            else:
                before.append(term)
        return share, before, after

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        with translated("reading generations"):
            stored = self._stored(episode_ids)
        return {key: (max(g for _, g in rows), len(rows)) for key, rows in stored.items()}

    def vectors(self, episode_ids: Sequence[str], *, single: bool = False) -> StoredVectors:
        if not episode_ids or self._collection is None:
            return StoredVectors.none()
        with translated("reading vectors"):
            names = list(dict.fromkeys(episode_ids))
            records = self._first_windows(names) if single else []
            if len(records) < len(names):
                records = self._scroll(names, [p.EPISODE], [CONTENT])
                names = [engine.text(record.payload, p.EPISODE) for record in records]
            owners: list[str] = []
            rows = bytearray()
            dimension = self._collection.fingerprint.dimension
            packed = Struct(f"{dimension}f")
            for name, record in zip(names, records, strict=True):
                vector = engine.dense(record, CONTENT)
                if vector is not None:
                    owners.append(name)
                    rows += packed.pack(*vector)  # numpy takes three times as long over a list
            matrix = np.frombuffer(rows, np.float32).reshape(len(owners), dimension)
        self._read_since += len(owners)
        if self._read_since >= READ_AND_RELEASED:
            self._release_pages()
        return p.mean_vectors(episode_ids, owners, matrix)

    def _first_windows(self, episode_ids: Sequence[str]) -> list[edge.Record]:
        """With their vectors, in the order of the ids, without those that there are none of.

        Points are found by their own ids in two thirds of the time that their payloads take.
        """
        shard = self._readable()
        if shard is None:
            return []
        if len(episode_ids) >= MANY:
            self._read_ahead(wanted=True)
        ids: list[Any] = p.first_windows(self._namespace, episode_ids)
        return shard.retrieve(ids, with_payload=False, with_vector=[CONTENT])

    def _read_ahead(self, *, wanted: bool) -> None:
        """``wanted``: points are read by the thousand from here on, those of a run in about the order they lie in."""
        now = time.monotonic()
        if wanted == self._reads_ahead or self._collection is None or (wanted and now < self._ahead_again):
            return
        self._reads_ahead, self._ahead_again = wanted, now + AHEAD_SECONDS
        engine.read_ahead(self._collection.shard, wanted=wanted)

    def _release_pages(self) -> None:
        """While nothing is written, or else after the next reading: in writing and closing alone the engine unmaps its
        files."""
        if not self._write.acquire(blocking=False):
            return
        try:
            self._read_since = 0
            if self._shard is not None and self._collection is not None:
                engine.release_pages(self._collection.shard)
        finally:
            self._write.release()

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


def _best(ask: Callable[[int], tuple[list[p.Scored], int]], wanted: int, limit: int) -> list[Hit]:
    """The ``limit`` best episodes. ``ask`` looks for so many points and says how many there were.

    Windows of one episode crowd each other out, and conditions leave some out: more is asked for until it suffices.
    """
    while True:
        scored, found = ask(wanted)
        hits = p.best_windows(scored, limit)
        if len(hits) >= limit or found < wanted:
            return hits
        wanted *= 4
