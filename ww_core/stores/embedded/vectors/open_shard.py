"""A qdrant-edge shard while this process has it open: made, closed, rewritten, and its points looked up."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from ww_core.errors import NO_SPACE, ConfigurationError, StoreUnavailable
from ww_core.ram import return_memory
from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import collection, engine, forks, rewrite, room
from ww_core.stores.embedded.vectors.engine import translated
from ww_core.stores.embedded.vectors.rewrite import Touched
from ww_core.stores.embedded.vectors.warming import Warming
from ww_core.stores.ports import Fingerprint, Point

log = logging.getLogger(__name__)

PAGE = 10_000
"""Points read in one scroll."""
AT_ONCE = 64
"""Points written in one call of the engine, which keeps Python's lock: others wait 3 ms on the average, not 12."""
LOG_BYTES = 96 * 1024**2
"""On the disk, of the engine's log, from which it is told to write out what it holds: every 10 000 points or so."""


class OpenShard:
    """The collection in ``directory``, where there is one, and what its parts share."""

    def __init__(self, directory: Path, *, namespace: str, cold: bool = False) -> None:
        self._directory = directory
        self._cold = cold
        self._namespace = namespace
        self._write = threading.RLock()
        self._closed = False
        self._leaving = False
        """Closing waits for a running scrub, which looks here between two calls of the engine."""
        self._scrubbing = threading.Lock()
        self._touched: Touched | None = None
        """What a running scrub has to look at again; guarded by the write lock."""
        self._warming: Warming | None = None
        self._shard: edge.EdgeShard | None = None
        self._collection = collection.find(directory, cold=cold)
        if self._collection is not None:
            self._collection.tidy()
            room.need_to_open(self._collection.shard)
            with translated("opening it"):
                self._shard = engine.load(self._collection.shard, cold=cold)
                outdated = engine.outdated_centroids()
                if self._shard.count(edge.CountRequest(filter=outdated)):
                    self._shard.update(edge.UpdateOperation.delete_points_by_filter(outdated))
                if cold:
                    self._shard.optimize()  # nothing, unless many points came since
                elif (self._shard.info().points_count or 0) >= engine.COMPRESSED_FROM:
                    self._warming = Warming(self._collection.shard)
            return_memory()

    # -- the collection

    def ping(self) -> None:
        return None

    def close(self) -> None:
        """Write out what the log holds and close. Where the disk is full it stays in the log for the next opening."""
        self._leaving = True
        if self._warming is not None:
            self._warming.stop()
        with self._scrubbing, self._write:
            self._closed = True
            shard, self._shard = self._shard, None
            if shard is None or self._collection is None:
                return
            try:
                room.need(self._directory, room.TO_WRITE, "closing it")
                with translated("closing it"):
                    shard.flush()
                    shard.close()
            except StoreUnavailable as error:
                if NO_SPACE not in error.message:
                    raise
                self._leave(shard, self._collection.shard)
                log.warning("closed as it was, nothing is lost: %s", error, extra={"action": "vectors.left"})

    @staticmethod
    def _leave(shard: edge.EdgeShard, directory: Path) -> None:
        """Leave the shard as a killed process would. The engine would write when it drops it, into files mapped to
        memory, and on a full disk the kernel ends the process for that. Its log is unlocked for whoever opens it."""
        forks.immortal(shard)
        forks.close_files_below(directory / "wal")

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

    # -- what the parts share

    def _bound_log(self) -> None:
        """Have the engine write out what it was told, once its log is long. Called by who holds the write lock.

        Until then the log lies on the disk beside what it tells, and who opens the shard after a kill does all of it
        again, at a quarter of a millisecond a point. No thread runs meanwhile. Where it fails the log holds everything.
        """
        if self._shard is None or self._collection is None:
            return
        length = room.size(self._collection.shard / "wal")
        if length > LOG_BYTES and room.free(self._directory) > room.TO_WRITE + length:
            try:
                self._shard.flush()
            except Exception as error:  # the engine raises plain Exception for everything
                why = engine.unavailable("writing out its log", error)
                log.warning("the log stays as long as it is: %s", why, extra={"action": "vectors.log"})

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

    def _delete(self, episode_ids: Iterable[str], point_ids: Sequence[UUID]) -> None:
        if point_ids:
            room.need(self._directory, room.TO_DELETE, "deleting points")
            self._touch(episode_ids)
            self._writable().update(edge.UpdateOperation.delete_points(list[Any](point_ids)))
            self._bound_log()
