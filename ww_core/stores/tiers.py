"""Vectors in two tiers behind one port: what lives in a hot collection, what was archived in a cold one on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ww_core.stores import points as p
from ww_core.stores.ports import (
    Centroid,
    Fingerprint,
    Hit,
    Point,
    PointChange,
    Search,
    StoredVectors,
    VectorStore,
    Where,
)

R = TypeVar("R")

MOVED_AT_ONCE = 500
"""Episodes whose points are read whole and written elsewhere in one step: about 5 MB."""
LOOK_SECONDS = 1.0
"""How long readers believe that there is no cold collection: another process may make it, and asking takes 1 ms."""
_COLD = "cold:"
"""Before the cursor of a walk through the cold tier."""


class Tier(VectorStore, Protocol[R]):
    """A collection whose points can be taken to another one as they are; ``R`` is a whole point there."""

    def fingerprint(self) -> Fingerprint | None:
        """Of the collection, None where there is none yet."""

    def read(self, episode_ids: Sequence[str]) -> list[R]:
        """Every point of the episodes with all that belongs to it."""

    def write(self, points: Sequence[R]) -> None:
        """Points read elsewhere, each where none of a higher or equal generation is stored."""

    def discard(self, generations: Mapping[str, int]) -> None:
        """Remove the points of these episodes up to these generations."""


class TieredVectors(Generic[R]):
    """A VectorStore of two tiers. The cold one is made when the first episode is archived; until then it costs nothing.

    A move writes the points to the new place and then removes them from the old one. Who is interrupted in between
    leaves them in both, and the episode's payload is dirty still, so the move is made again. Until then searches,
    ``generations``, ``vectors`` and ``pieces`` have them once; ``count``, ``info`` and ``walk`` have them twice.
    ``generations`` and ``vectors`` look into the hot tier again for what was in neither: it may have come back by then.
    Other processes move points, too: who moves one cannot see that it was erased on the way, and has to ask the record
    afterwards (ww_core.maintenance.refresh).
    A word's rarity is that of the tier it is found in, so BM25 scores of live and archived episodes compare roughly.
    """

    def __init__(
        self,
        hot: Tier[R],
        cold: Tier[R],
        *,
        archive_cold: bool,
        writing: Callable[[], AbstractContextManager[object]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``archive_cold`` False: nothing moves to the cold tier, and what is there comes back when it is changed.
        ``writing`` is held while something is written."""
        self._hot = hot
        self._cold = cold
        self._archive_cold = archive_cold
        self._writing = writing
        self._clock = clock
        self._fingerprint: Fingerprint | None = None
        self._there = False
        self._look_at = 0.0

    # -- the tiers

    def ping(self) -> None:
        self._hot.ping()

    def close(self) -> None:
        try:
            self._cold.close()
        finally:
            self._hot.close()

    def ensure(self, fingerprint: Fingerprint) -> None:
        self._hot.ensure(fingerprint)
        self._fingerprint = fingerprint

    def _has_cold(self, *, look: bool = False) -> bool:
        """``look``: do not believe an absence that was seen a moment ago. Whoever writes has to."""
        now = self._clock()
        if not self._there and (look or now >= self._look_at):
            self._there = self._cold.fingerprint() is not None
            self._look_at = now + LOOK_SECONDS
        return self._there

    def _may_be_cold(self, where: Where | None) -> bool:
        """Whether the cold tier may hold what is asked for: nothing that lives is in it."""
        return (where is None or where.archived is not False) and self._has_cold()

    def _tiers(self, where: Where | None = None) -> Iterator[Tier[R]]:
        """Those that may hold what is asked for, the cold one decided on when the hot one was read."""
        yield self._hot
        if self._may_be_cold(where):
            yield self._cold

    # -- writing

    def upsert(self, points: Sequence[Point]) -> None:
        with self._writing():
            to_cold = [point for point in points if point.archived and self._archive_cold]
            to_hot = [point for point in points if not (point.archived and self._archive_cold)]
            if to_cold:
                self._make_cold()
                self._upsert(to_cold, self._cold, self._hot)
            if to_hot and self._has_cold(look=True):
                self._upsert(to_hot, self._hot, self._cold)
            elif to_hot:
                self._hot.upsert(to_hot)

    def _upsert(self, points: Sequence[Point], into: Tier[R], other: Tier[R]) -> None:
        """As the port says, where ``other`` may hold another generation."""
        ids = list(dict.fromkeys(point.episode_id for point in points))
        there = other.generations(ids)
        newer = [point for point in points if point.generation > there.get(point.episode_id, (-1, 0))[0]]
        if not newer:
            return
        into.upsert(newer)
        written = {point.episode_id: point.generation for point in p.newest(newer)}
        other.discard({episode_id: generation - 1 for episode_id, generation in written.items()})
        late = {key: highest for key, (highest, _) in other.generations(list(written)).items()}
        # another writer was there in between
        into.discard({key: written[key] for key, highest in late.items() if highest >= written[key]})

    def change(self, changes: Sequence[PointChange]) -> None:
        with self._writing():
            self._hot.change(changes)
            # looked up afterwards: what another process moves meanwhile is changed here or there
            ids = [change.episode_id for change in changes]
            there = self._cold.generations(ids) if ids and self._has_cold(look=True) else {}
            self._cold.change([change for change in changes if change.episode_id in there])
            to_cold = [change.episode_id for change in changes if change.archived and self._archive_cold]
            if to_cold:
                self._move(to_cold, self._hot, self._cold)
            lives = [
                c.episode_id for c in changes if c.archived is not None and not (c.archived and self._archive_cold)
            ]
            if to_hot := [episode_id for episode_id in lives if episode_id in there]:
                self._move(to_hot, self._cold, self._hot)

    def set_cells(self, episode_ids: Sequence[str], cells: tuple[str, ...]) -> None:
        with self._writing():
            self._hot.set_cells(episode_ids, cells)
            # looked up afterwards, as in change
            if episode_ids and self._has_cold(look=True):
                self._cold.set_cells(list(self._cold.generations(episode_ids)), cells)

    def _move(self, episode_ids: Sequence[str], source: Tier[R], target: Tier[R]) -> None:
        there = source.generations(episode_ids)
        if there and target is self._cold:
            self._make_cold()
        ids = list(there)
        for start in range(0, len(ids), MOVED_AT_ONCE):
            some = ids[start : start + MOVED_AT_ONCE]
            target.write(source.read(some))
            source.discard({episode_id: there[episode_id][0] for episode_id in some})

    def _make_cold(self) -> None:
        if self._has_cold(look=True):
            return
        self._fingerprint = self._fingerprint or self._hot.fingerprint()
        if self._fingerprint is not None:
            self._cold.ensure(self._fingerprint)
            self._there = True

    def delete(self, episode_ids: Sequence[str]) -> int:
        with self._writing():
            removed = self._hot.delete(episode_ids)
            return removed + (self._cold.delete(episode_ids) if self._has_cold(look=True) else 0)

    # -- reading

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        found = self._hot.search(searches)
        deep = [row for row, search in enumerate(searches) if self._may_be_cold(search.where)]
        if deep:
            for row, hits in zip(deep, self._cold.search([searches[row] for row in deep]), strict=True):
                both = ((hit.episode_id, hit.window, hit.score) for hit in (*found[row], *hits))
                found[row] = p.best_windows(both, searches[row].limit)
        return found

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        found = self._hot.generations(episode_ids)
        if not self._has_cold(look=len(found) < len(set(episode_ids))):
            return found
        for episode_id, row in self._cold.generations(episode_ids).items():
            if row[0] > found.get(episode_id, (-1, 0))[0]:
                found[episode_id] = row
        missing = [episode_id for episode_id in episode_ids if episode_id not in found]
        return {**found, **self._hot.generations(missing)} if missing else found

    def vectors(self, episode_ids: Sequence[str], *, single: bool = False) -> StoredVectors:
        found, missing = [], list(episode_ids)
        for tier in (self._hot, self._cold, self._hot):
            if not missing or (tier is self._cold and not self._has_cold(look=True)):
                break
            found.append(tier.vectors(missing, single=single))
            there = set(found[-1].episode_ids)
            missing = [episode_id for episode_id in missing if episode_id not in there]
        parts = [part for part in found if len(part)]
        if len(parts) < 2:
            return parts[0] if parts else StoredVectors.none()
        ids = [episode_id for part in parts for episode_id in part.episode_ids]
        return p.in_order(episode_ids, ids, np.concatenate([part.rows for part in parts]))

    def pieces(self, episode_ids: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for tier in self._tiers():
            found = tier.pieces([episode_id for episode_id in episode_ids if episode_id not in found]) | found
        return found

    def walk(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[tuple[str, int]], str | None]:
        rows: list[tuple[str, int]] = []
        if after is None or not after.startswith(_COLD):
            rows, after = self._hot.walk(after=after, limit=limit)
            if after is not None or not self._has_cold():
                return rows, after
            if len(rows) >= limit:
                return rows, _COLD
        more, following = self._cold.walk(after=(after or "").removeprefix(_COLD) or None, limit=limit - len(rows))
        return [*rows, *more], None if following is None else _COLD + following

    def count(self, where: Where | None = None, *, exact: bool = True) -> int:
        return sum(tier.count(where, exact=exact) for tier in self._tiers(where))

    def info(self) -> Mapping[str, Any]:
        facts = dict(self._hot.info())
        if self._has_cold():
            cold = dict(self._cold.info())
            facts["points"] += cold["points"]
            facts["cold"] = {key: value for key, value in cold.items() if key not in {"backend", "version", "model"}}
        return facts

    # -- centroids: of what lives

    def put_centroids(self, centroids: Sequence[Centroid]) -> None:
        self._hot.put_centroids(centroids)

    def centroids(self, session_id: str, attempt: str) -> list[Centroid]:
        return self._hot.centroids(session_id, attempt)

    def drop_centroids(self, session_id: str, *, keep: Sequence[str]) -> None:
        self._hot.drop_centroids(session_id, keep=keep)

    def walk_centroids(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[str], str | None]:
        return self._hot.walk_centroids(after=after, limit=limit)

    def drop_attempts(self, attempts: Sequence[str]) -> None:
        self._hot.drop_attempts(attempts)

    def scrub(self) -> None:
        for tier in self._tiers():
            tier.scrub()
