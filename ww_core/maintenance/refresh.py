"""Bringing derived data back in line with the record: changed payload, and context vectors of changed neighbours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ww_core.errors import ConfigurationError, Unavailable
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.drain import YIELD_SECONDS, WindowEmbedder, let_pass, never
from ww_core.maintenance.parts import Failed, in_parts
from ww_core.maintenance.points import Sparse, payload
from ww_core.models import Episode, Vector
from ww_core.observability.metrics import ATTEMPTS, Metrics
from ww_core.recall.context import LEXICAL_TERMS, context_text, lexical_context_text
from ww_core.stores.ports import (
    BM25_CONTEXT,
    CONTEXT,
    CONTEXT_NEIGHBOURS,
    Dirty,
    DirtyRow,
    GraphStore,
    PointChange,
    SparseVector,
    VectorStore,
)

log = logging.getLogger(__name__)

PAYLOAD_ROWS = 1000
CONTEXT_ROWS = 256
DENSE_CHARS = 2000
"""Of a long text only the beginning is in the dense context vector: its windows have vectors of their own."""


@dataclass(frozen=True, slots=True)
class ContextTexts:
    """What the context vectors of an episode are made of."""

    dense: str
    lexical: str


def context_texts(episode: Episode, neighbours: Sequence[Episode]) -> ContextTexts:
    """``neighbours``: session order, the episode itself among them."""
    short = replace(episode, content=episode.content[:DENSE_CHARS])
    return ContextTexts(context_text(short, neighbours), lexical_context_text(episode, neighbours))


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
        embedding: WindowEmbedder,
        sparse: Sparse,
        metrics: Metrics,
        *,
        breaker: CircuitBreaker,
        texts: Callable[[Episode, Sequence[Episode]], ContextTexts] = context_texts,
        interruptions: tuple[type[BaseException], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._embedding = embedding
        self._sparse = sparse
        self._metrics = metrics
        self._breaker = breaker
        self._texts = texts
        self._interruptions = interruptions
        self._clock = clock
        self._left = 0
        """Rows read and not seen to yet."""

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
        self._left = 0

        def over() -> bool:
            let_pass(should_yield, should_stop, YIELD_SECONDS, self._clock)
            return should_stop() or self._clock() >= end

        try:
            for kind, limit, work in (
                (Dirty.PAYLOAD, PAYLOAD_ROWS, self._payload),
                (Dirty.CONTEXT, CONTEXT_ROWS, self._context),
            ):
                while not over() and (rows := self._graph.dirty(kind, limit)):
                    self._left = len(rows)
                    worked = work(rows, over)
                    done[kind] += worked
                    if not worked:
                        break
        except self._interruptions:
            log.info("interrupted", extra={"action": "refresh.interrupted"})
        except (Unavailable, ConfigurationError, MemoryError, OSError) as error:
            self._breaker.failed()
            self._metrics.tried_in_vain("refresh", error, max(1, self._left))
            return RefreshReport(done[Dirty.PAYLOAD], done[Dirty.CONTEXT], outage=f"{type(error).__name__}: {error}")
        return RefreshReport(done[Dirty.PAYLOAD], done[Dirty.CONTEXT], more=should_stop() or self._clock() >= end)

    def _succeeded(self, rows: int) -> None:
        """Each row is an attempt, as each of those left is one that failed where something is out of order."""
        self._left -= rows
        self._metrics.increment(ATTEMPTS, rows)

    def _payload(self, rows: Sequence[DirtyRow], over: Callable[[], bool]) -> int:
        with self._metrics.timer("refresh.payload"):
            self._vectors.change([payload(row.episode) for row in rows])
            self._leave_nothing_erased([row.episode.episode_id for row in rows])
            self._graph.clear_dirty(Dirty.PAYLOAD, _versions(rows))
        self._succeeded(len(rows))
        return len(rows)

    def _leave_nothing_erased(self, changed: Sequence[str]) -> None:
        """Points may move to another collection, either way, and arrive after an erasure has looked there."""
        gone = sorted(set(changed) - self._graph.get(changed).keys())
        if gone:
            self._vectors.delete(gone)

    def _context(self, rows: Sequence[DirtyRow], over: Callable[[], bool]) -> int:
        return self._embed(rows, self._read(rows), over)

    def _embed(self, rows: Sequence[DirtyRow], texts: Mapping[str, ContextTexts], over: Callable[[], bool]) -> int:
        """How many of the rows were seen to; a text that the model does not take leaves its context as it was."""
        wanted = [texts[row.episode.episode_id] for row in rows]
        left, since = dict(enumerate(rows)), self._clock()
        parts = in_parts(
            self._embedding,
            [text.dense for text in wanted],
            over=never,
            clock=self._clock,
            interruptions=self._interruptions,
        )
        try:
            with closing(parts):
                for part in parts:
                    changed = [left.pop(place) for place, _ in part]
                    self._write(changed, [(wanted[place].lexical, _mean(windows)) for place, windows in part])
                    self._metrics.observe("refresh.context", self._clock() - since)
                    if over():
                        return len(rows) - len(left)
                    since = self._clock()
        except Failed as failed:
            return len(rows) - len(left) + self._halve(list(left.values()), texts, over, failed.error)
        return len(rows)

    def _write(self, rows: Sequence[DirtyRow], made: Sequence[tuple[str, Vector]]) -> None:
        """``made``: the words and the vector of each row's surroundings."""
        changes = [
            PointChange(row.episode.episode_id, {CONTEXT: vector}, self._words(lexical))
            for row, (lexical, vector) in zip(rows, made, strict=True)
        ]
        self._vectors.change(changes)
        self._graph.clear_dirty(Dirty.CONTEXT, _versions(rows))
        self._succeeded(len(rows))

    def _halve(
        self,
        rows: Sequence[DirtyRow],
        texts: Mapping[str, ContextTexts],
        over: Callable[[], bool],
        error: Exception,
    ) -> int:
        """As in a drain: which text it is, halving finds."""
        if isinstance(error, Unavailable | ConfigurationError | MemoryError | OSError):
            raise error
        if len(rows) == 1:
            log.warning("no context vector: %s", type(error).__name__, extra={"action": "refresh.text_failed"})
            self._graph.clear_dirty(Dirty.CONTEXT, _versions(rows))
            self._left -= 1
            self._metrics.tried_in_vain("refresh", error)
            return 1
        middle, seen = len(rows) // 2, 0
        for half in (rows[:middle], rows[middle:]):
            if half and not over():
                seen += self._embed(half, texts, over)
        return seen

    def _words(self, text: str) -> dict[str, SparseVector]:
        return {BM25_CONTEXT: self._sparse.document(text, average_length=LEXICAL_TERMS)}

    def _read(self, rows: Sequence[DirtyRow]) -> dict[str, ContextTexts]:
        episodes = {row.episode.episode_id: row.episode for row in rows}
        around = self._graph.around(list(episodes), reach=CONTEXT_NEIGHBOURS)
        known = episodes | self._graph.get(
            sorted({other for ids in around.values() for other in ids if other is not None} - episodes.keys())
        )
        texts = {}
        for episode_id, episode in episodes.items():
            ids = around.get(episode_id, ())
            middle = len(ids) // 2
            order = [*ids[:middle], episode_id, *ids[middle:]]
            neighbours = [known[other] for other in order if other is not None and other in known]
            texts[episode_id] = self._texts(episode, neighbours)
        return texts


def _versions(rows: Sequence[DirtyRow]) -> dict[str, int]:
    return {row.episode.episode_id: row.version for row in rows}


def _mean(rows: Vector) -> Vector:
    mean = rows.mean(axis=0)
    norm = np.linalg.norm(mean)
    unit: Vector = (mean / norm if norm > 0 else mean).astype(np.float32)
    return unit
