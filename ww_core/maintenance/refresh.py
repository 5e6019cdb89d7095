"""Bringing derived data back in line with the record: changed payload, and context vectors of changed neighbours.

No model is needed: a context vector is made of the vectors that are stored.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ww_core.errors import ConfigurationError, Unavailable
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.drain import YIELD_SECONDS, let_pass, never
from ww_core.maintenance.points import Sparse, payload
from ww_core.models import Episode, Vector
from ww_core.observability.metrics import ATTEMPTS, Metrics
from ww_core.recall.context import (
    DENSE_REACH,
    LEXICAL_REACH,
    LEXICAL_TERMS,
    context_vector,
    lexical_context_text,
    surroundings,
)
from ww_core.stores.ports import (
    BM25_CONTEXT,
    CONTEXT,
    CONTEXT_NEIGHBOURS,
    Dirty,
    DirtyRow,
    GraphStore,
    PointChange,
    VectorStore,
)

log = logging.getLogger(__name__)

ROWS = 500
"""Flags that are seen to in one step."""


class Surroundings(NamedTuple):
    """An episode and those before and after it in its stretch, as far as any context reaches, in session order."""

    before: tuple[Episode, ...]
    episode: Episode
    after: tuple[Episode, ...]

    def nearest(self) -> Surroundings:
        """As far as the dense context reaches."""
        return Surroundings(self.before[-DENSE_REACH:], self.episode, self.after[:DENSE_REACH])


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What one refresh did."""

    payload: int = 0
    context: int = 0
    more: bool = False
    outage: str = ""


class Refresh:
    """Works off dirty flags. A flag is cleared only where it is still the one that was read."""

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        sparse: Sparse,
        metrics: Metrics,
        *,
        breaker: CircuitBreaker,
        interruptions: tuple[type[BaseException], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._sparse = sparse
        self._metrics = metrics
        self._breaker = breaker
        self._interruptions = interruptions
        self._clock = clock

    def run(
        self,
        *,
        max_seconds: float,
        should_stop: Callable[[], bool] = never,
        should_yield: Callable[[], bool] = never,
    ) -> RefreshReport:
        """Refresh for at most about ``max_seconds``, stopping and yielding as a drain does.

        Never raises for what is out of order: the report says it.
        """
        end = self._clock() + max_seconds
        done = {Dirty.PAYLOAD: 0, Dirty.CONTEXT: 0}
        left = 0

        def over() -> bool:
            let_pass(should_yield, should_stop, YIELD_SECONDS, self._clock)
            return should_stop() or self._clock() >= end

        try:
            for kind, work in ((Dirty.PAYLOAD, self._payload), (Dirty.CONTEXT, self._context)):
                while not over() and (rows := self._graph.dirty(kind, ROWS)):
                    left = len(rows)
                    work(rows)
                    self._graph.clear_dirty(kind, {row.episode.episode_id: row.version for row in rows})
                    self._metrics.increment(ATTEMPTS, len(rows))
                    done[kind] += len(rows)
                    left = 0
        except self._interruptions:
            log.info("interrupted", extra={"action": "refresh.interrupted"})
        except (Unavailable, ConfigurationError, MemoryError, OSError) as error:
            self._breaker.failed()
            self._metrics.tried_in_vain("refresh", error, max(1, left))
            return RefreshReport(done[Dirty.PAYLOAD], done[Dirty.CONTEXT], outage=f"{type(error).__name__}: {error}")
        return RefreshReport(done[Dirty.PAYLOAD], done[Dirty.CONTEXT], more=should_stop() or self._clock() >= end)

    def renew(self, episode_ids: Sequence[str]) -> None:
        """Make the contexts of these episodes anew, as far as they live and have points; their flags stay as they are.

        Raises StoreUnavailable.
        """
        living = self._graph.get(sorted(episode_ids))
        self._renew({name: e for name, e in living.items() if e.windows or e.embedded_at is not None})

    def _payload(self, rows: Sequence[DirtyRow]) -> None:
        with self._metrics.timer("refresh.payload"):
            self._vectors.change([payload(row.episode) for row in rows])
            self._leave_nothing_erased([row.episode.episode_id for row in rows])

    def _leave_nothing_erased(self, changed: Sequence[str]) -> None:
        """Points may move to another collection, either way, and arrive after an erasure has looked there."""
        gone = sorted(set(changed) - self._graph.get(changed).keys())
        if gone:
            self._vectors.delete(gone)

    def _context(self, rows: Sequence[DirtyRow]) -> None:
        self._renew({row.episode.episode_id: row.episode for row in rows})

    def _renew(self, left: Mapping[str, Episode]) -> None:
        """What was erased before it was written is taken out again: another refresh may have cleared the new flag."""
        with self._metrics.timer("refresh.context"):
            while left:
                found = self._surroundings(left)
                self._change(found)
                beside = {e.episode_id for here in found for e in (*here.before, *here.after)}
                gone = beside - self._graph.get(sorted(beside)).keys()
                left = {
                    here.episode.episode_id: here.episode
                    for here in found
                    if not gone.isdisjoint(e.episode_id for e in (*here.before, *here.after))
                }

    def _change(self, found: Sequence[Surroundings]) -> None:
        nearest = [here.nearest() for here in found]
        wanted = {e.episode_id for here in nearest for e in (*here.before, here.episode, *here.after)}
        stored = self._vectors.vectors(sorted(wanted))
        vectors = dict(zip(stored.episode_ids, stored.rows, strict=True))
        words = self._sparse.documents([lexical_context_text(*here) for here in found], [LEXICAL_TERMS])
        self._vectors.change(
            [
                PointChange(here.episode.episode_id, _dense(near, vectors), {BM25_CONTEXT: among})
                for here, near, (among,) in zip(found, nearest, words, strict=True)
            ]
        )

    def _surroundings(self, episodes: Mapping[str, Episode]) -> list[Surroundings]:
        around = self._graph.around(list(episodes), reach=CONTEXT_NEIGHBOURS)
        others = {other for ids in around.values() for other in ids if other is not None}
        known = {**episodes, **self._graph.get(sorted(others - episodes.keys()))}
        found = []
        for episode_id, episode in episodes.items():
            ids = around.get(episode_id, ())
            middle = len(ids) // 2
            order = [*ids[:middle], episode_id, *ids[middle:]]
            neighbours = [known[other] for other in order if other is not None and other in known]
            before, after = surroundings(episode, neighbours, reach=LEXICAL_REACH)
            found.append(Surroundings(before, episode, after))
        return found


def _dense(here: Surroundings, vectors: Mapping[str, Vector]) -> dict[str, Vector]:
    """Neighbours that are not embedded yet flag the episode again once they are; without a vector of its own it has no
    points either."""

    def known(beside: Sequence[Episode]) -> list[Vector]:
        return [vectors[episode.episode_id] for episode in beside if episode.episode_id in vectors]

    own = vectors.get(here.episode.episode_id)
    return {} if own is None else {CONTEXT: context_vector(own, known(here.before), known(here.after))}
