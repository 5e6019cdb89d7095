"""Embeddings that were just made: bounded, ageing, and computed once however many ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from typing import Generic, SupportsFloat, TypeVar

import numpy as np

from ww_core.models import Vector

K = TypeVar("K", bound=Hashable)


class Tally(int):
    """A count. Dividing by a count of 0 gives nan, which is what a rate of nothing is, and not an exception."""

    def __truediv__(self, other: SupportsFloat) -> float:
        return _ratio(self, other)

    def __rtruediv__(self, other: SupportsFloat) -> float:
        return _ratio(other, self)


def _ratio(part: SupportsFloat, whole: SupportsFloat) -> float:
    return float(part) / float(whole) if float(whole) else float("nan")


class EmbeddingCache(Generic[K]):
    """Least recently used embeddings with a time to live. Thread-safe.

    Args:
        size: entries kept; 0 keeps none (callers that ask at the same moment still share one computation).
        ttl: seconds an entry is kept after it was computed.
        clock: monotonic seconds.
    """

    def __init__(self, size: int, ttl: float, *, clock: Callable[[], float]) -> None:
        self._size = size
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[float, Vector]] = OrderedDict()
        self._computing: dict[K, Future[Vector]] = {}
        self._hits = self._misses = self._evicted = self._expired = 0

    def fetch(
        self, keys: Sequence[K], compute: Callable[[list[K]], Sequence[Vector]], *, counted: bool = True
    ) -> list[Vector]:
        """One vector (d,) for each key; ``compute`` is called once, with the keys that nobody has or is computing.

        Its errors are raised here. A caller that waited for a computation which failed computes for itself. What is not
        ``counted`` is no lookup to the statistics.
        """
        one = int(counted)
        ready: dict[K, Vector] = {}
        mine: dict[K, Future[Vector]] = {}
        theirs: dict[K, Future[Vector]] = {}
        with self._lock:
            for key in keys:
                if key in ready or key in mine or key in theirs:
                    self._hits += one
                elif (vector := self._fresh(key)) is not None:
                    ready[key] = vector
                    self._hits += one
                elif (under_way := self._computing.get(key)) is not None:
                    theirs[key] = under_way
                    self._hits += one
                else:
                    mine[key] = self._computing[key] = Future()
                    self._misses += one
        # Own work first, then waiting: two callers can never wait for each other.
        if mine:
            ready.update(self._compute(mine, compute))
        orphans: list[K] = []
        for key, under_way in theirs.items():
            if under_way.exception() is None:
                ready[key] = under_way.result()
            else:
                orphans.append(key)
        if orphans:
            with self._lock:
                self._hits -= one * len(orphans)  # they were no hits after all; fetch counts them anew
            ready.update(zip(orphans, self.fetch(orphans, compute, counted=counted), strict=True))
        return [ready[key] for key in keys]

    def peek(self, keys: Sequence[K]) -> dict[K, Vector]:
        """What is there of ``keys``, without counting, ageing or moving anything: for bulk work."""
        with self._lock:
            now = self._clock()
            found = ((key, self._entries.get(key)) for key in keys)
            return {key: entry[1] for key, entry in found if entry is not None and entry[0] > now}

    def put(self, key: K, vector: Vector) -> None:
        """Keep a vector (d,) that was computed elsewhere."""
        with self._lock:
            self._keep(key, _frozen(vector))

    def discard(self, keys: Sequence[K]) -> None:
        """Forget ``keys``, where they are there."""
        with self._lock:
            for key in keys:
                self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything; the statistics stay."""
        with self._lock:
            self._entries.clear()

    def reset_after_fork(self) -> None:
        """In a forked child: a lock may be held, and a computation under way, by a thread that does not exist here."""
        self._lock = threading.Lock()
        self._computing = {}

    def stats(self) -> Mapping[str, float]:
        """Counts: ``hits``, ``misses``, ``total`` (texts asked for), ``size``, ``capacity``, ``evictions``,
        ``expired``.

        ``hit_rate`` is hits / total, nan while nothing was asked for, as is dividing by such a ``total``. A text that
        another thread was just computing is a hit: it cost no model call.
        """
        with self._lock:
            total = self._hits + self._misses
            return {
                "hits": Tally(self._hits),
                "misses": Tally(self._misses),
                "total": Tally(total),
                "size": Tally(len(self._entries)),
                "capacity": Tally(self._size),
                "evictions": Tally(self._evicted),
                "expired": Tally(self._expired),
                "hit_rate": _ratio(self._hits, total),
            }

    def _compute(
        self, mine: Mapping[K, Future[Vector]], compute: Callable[[list[K]], Sequence[Vector]]
    ) -> dict[K, Vector]:
        try:
            vectors = compute(list(mine))
        except BaseException as error:  # whoever waits must be released, also on KeyboardInterrupt
            with self._lock:
                for key in mine:
                    self._computing.pop(key, None)
            for future in mine.values():
                future.set_exception(error)
            raise
        made = dict(zip(mine, map(_frozen, vectors), strict=True))
        with self._lock:
            for key, vector in made.items():
                self._keep(key, vector)
                self._computing.pop(key, None)
        for key, future in mine.items():
            future.set_result(made[key])
        return made

    def _fresh(self, key: K) -> Vector | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[key]
            self._expired += 1
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def _keep(self, key: K, vector: Vector) -> None:
        if self._size == 0:
            return
        self._entries[key] = (self._clock() + self._ttl, vector)
        self._entries.move_to_end(key)
        while len(self._entries) > self._size:
            self._entries.popitem(last=False)
            self._evicted += 1


def _frozen(vector: Vector) -> Vector:
    kept = np.array(vector, dtype=np.float32)  # a copy: a row would keep its whole batch alive
    kept.flags.writeable = False
    return kept


__all__ = ["EmbeddingCache", "Tally"]
