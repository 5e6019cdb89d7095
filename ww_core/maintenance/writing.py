"""The second half of a drain, on a thread of its own: write the points, mark the rows, clean up behind lost leases."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ww_core.errors import InvalidInput, StoreUnavailable, WorldWeaverError
from ww_core.maintenance import scrub
from ww_core.maintenance.leases import Lease
from ww_core.maintenance.points import Sparse, points, words
from ww_core.models import Vector
from ww_core.observability.metrics import ATTEMPTS, Metrics
from ww_core.observability.summary import LAG, QUEUE_DEPTH
from ww_core.observability.tracing import UPSERT, process_tracing
from ww_core.stores.ports import Claim, GraphStore, VectorStore

log = logging.getLogger(__name__)

AHEAD = 2
"""Steps that may wait to be written while the next one is embedded."""


class Outage(Exception):
    """Something other than the text is at fault: nothing is counted against it. The reason is the cause."""


@dataclass(frozen=True, slots=True)
class _Job:
    lease: Lease
    claims: list[Claim]
    rows: list[Vector]
    task: Any
    """The span of the task, None where nothing is traced."""
    done: Future[None] = field(default_factory=Future)


def _points(rows: Sequence[Vector]) -> int:
    """One for each window of each episode."""
    return sum(len(windows) for windows in rows)


class Writer:
    """Takes embedded steps and returns at once; an error shows at the next ``put`` or at ``settle``."""

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        sparse: Sparse | None,
        metrics: Metrics,
        *,
        refuse: Callable[[Lease, Claim, Exception], None],
        pieces: Callable[[Sequence[str]], list[bytes]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._sparse = sparse
        self._metrics = metrics
        self._refuse = refuse
        self._pieces = pieces
        self._clock = clock
        self._started = clock()
        self._waiting: list[_Job] = []
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # a daemon, and no executor: those take no work while the interpreter ends, when a drain still hands back
        self._thread = threading.Thread(target=self._work, name="ww-write", daemon=True)
        self._awaiting = 0
        """Points of the steps that are not written yet."""
        self.written = 0
        """Rows marked embedded."""

    def put(self, lease: Lease, claims: Sequence[Claim], rows: Sequence[Vector], *, idle: Callable[[], None]) -> None:
        """Queue a step; ``idle`` is called now and then while the queue is full. Raises Outage."""
        self._wait(AHEAD - 1, idle)
        self._awaiting += _points(rows)
        self._metrics.set_gauge(QUEUE_DEPTH, self._awaiting)
        if not self._waiting and self._thread.ident is None:
            self._thread.start()
        job = _Job(lease, list(claims), list(rows), process_tracing().current())
        self._waiting.append(job)
        self._jobs.put(job)

    def settle(self, *, idle: Callable[[], None]) -> None:
        """Wait until everything is written. Raises Outage."""
        self._wait(0, idle)

    def close(self) -> None:
        """Wait for the step under way and forget the others."""
        for job in self._waiting:
            job.done.cancel()
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self._metrics.set_gauge(QUEUE_DEPTH, 0)
        if self.written:
            seconds = round(self._clock() - self._started, 3)
            log.info("embedded", extra={"action": "drain.done", "episodes": self.written, "seconds": seconds})

    def _wait(self, most: int, idle: Callable[[], None]) -> None:
        while self._waiting and (self._waiting[0].done.done() or len(self._waiting) > most):
            try:
                self._waiting[0].done.result(timeout=1.0)
            except NotYet:
                if not self._waiting[0].done.done():
                    idle()
                    continue
                raise
            self._waiting.pop(0)

    def _work(self) -> None:
        failed = False
        while (job := self._jobs.get()) is not None:
            if failed or not job.done.set_running_or_notify_cancel():
                continue
            try:
                self._write(job.lease, job.claims, job.rows, job.task)
            except BaseException as error:  # raised again where the drain waits for it
                failed = True  # what stands behind it would meet the same outage
                job.done.set_exception(error)
            else:
                job.done.set_result(None)
            self._awaiting -= _points(job.rows)
            self._metrics.set_gauge(QUEUE_DEPTH, self._awaiting)

    def _write(self, lease: Lease, claims: list[Claim], rows: list[Vector], task: Any) -> None:
        since = time.time_ns()
        try:
            if self._clock() - lease.renewed > lease.seconds / 2 and not self._renewed(lease):
                return
            with self._metrics.timer("embed.points"):
                found = words([claim.episode.content for claim in claims], self._sparse)
                each = zip(claims, rows, found, self._read(claims), strict=True)
                batch = [point for of_one in each for point in points(*of_one)]
            with self._metrics.timer("embed.upsert"):
                self._vectors.upsert(batch)
            with self._metrics.timer("embed.mark"):
                windows = {claim.episode.episode_id: len(row) for claim, row in zip(claims, rows, strict=True)}
                marked = self._graph.mark_embedded(lease.token, windows)
        except (StoreUnavailable, OSError, MemoryError) as error:
            raise Outage("the stores") from error
        except Exception as error:  # which of the texts the store does not take is found by halving
            if len(claims) > 1:
                middle = len(claims) // 2
                self._write(lease, claims[:middle], rows[:middle], task)
                self._write(lease, claims[middle:], rows[middle:], task)
                return
            if isinstance(error, InvalidInput | ValueError | TypeError):
                self._refuse(lease, claims[0], error)
                return
            raise Outage("the stores") from error
        lease.drop(windows.keys())
        self._account(claims, marked)
        process_tracing().episodes(UPSERT, marked, since=since, around=task)
        if len(marked) < len(windows):
            self._fence([name for name in windows if name not in marked])

    def _read(self, claims: Sequence[Claim]) -> Sequence[bytes]:
        """What late interaction reads of each text. What is missing it makes for itself, so nothing fails here."""
        unread = [b""] * len(claims)
        if self._pieces is None:
            return unread
        try:
            return self._pieces([claim.episode.content for claim in claims])
        except Exception as error:  # whatever a tokeniser or a model may raise
            log.warning("word pieces are left out: %s", type(error).__name__, extra={"action": "drain.pieces"})
            return unread

    def _renewed(self, lease: Lease) -> bool:
        # a worker that was frozen past its lease writes nothing that another one has to clean up
        lease.renewed = self._clock()
        if self._graph.extend(lease.token, lease_seconds=lease.seconds):
            return True
        lost = lease.held
        lease.drop(lost)
        log.warning("lease lost", extra={"action": "drain.lease_lost", "episodes": len(lost)})
        return False

    def _account(self, claims: Sequence[Claim], marked: Collection[str]) -> None:
        self.written += len(marked)
        self._metrics.increment("embedded", len(marked))
        self._metrics.increment(ATTEMPTS, len(marked))
        now = datetime.now(UTC)
        for claim in claims:
            stored = claim.episode.stored_at
            if stored is not None and claim.episode.episode_id in marked:
                self._metrics.observe(LAG, max(0.0, (now - stored).total_seconds()))

    def _fence(self, lost: Sequence[str]) -> None:
        """Rows that another worker took over, or that changed or were erased meanwhile."""
        try:
            living = self._graph.get(lost)
            erased = [name for name in lost if name not in living]
            if erased:
                self._vectors.delete(erased)
                scrub.note(self._graph)
        except WorldWeaverError as error:
            raise Outage("the stores") from error
        log.info("claims were void", extra={"action": "drain.fenced", "episodes": len(lost), "erased": len(erased)})
