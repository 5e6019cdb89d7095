"""What this process measures: stages, counters and gauges over a sliding window."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from ww_core.errors import Busy, EpisodeConflict, InvalidInput, NotFound
from ww_core.observability.history import ErrorHistory, LastFailure
from ww_core.observability.sketch import Sketch

log = logging.getLogger(__name__)

WINDOW_SECONDS = 300.0
"""How far back latencies and rates look: the alert's five minutes."""
SLICES = 10
"""The window moves in steps of a tenth."""

PUBLISHED_FAILURES = 20
"""Of one process, for others to see."""

ATTEMPTS = "attempts"
"""Counter: stores, recalls and task attempts."""
FAILURES = "failures"
"""Counter: those of them that failed other than by the caller's mistake."""
CALLERS_MISTAKES = (InvalidInput, NotFound, EpisodeConflict, Busy)


@dataclass(slots=True)
class _Slice:
    start: float
    sketches: dict[str, Sketch] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        sketch = self.sketches.get(stage)
        if sketch is None:
            sketch = self.sketches[stage] = Sketch()
        sketch.add(seconds)

    def dump(self, leaves: float) -> dict[str, object]:
        sketches = {name: sketch.dump() for name, sketch in self.sketches.items()}
        return {
            "leaves": round(leaves, 3),
            "sketches": sketches,
            "counts": dict(self.counts),
            "peaks": dict(self.peaks),
        }


@dataclass(slots=True)
class _Meter:
    read: Callable[[], int]
    last: int


@dataclass(frozen=True, slots=True)
class StageFigures:
    """Latency of one stage over the window, milliseconds; nan where nothing was measured."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The figures at one moment; ``float("nan")`` where nothing was measured, never an invented 0.

    Latencies are milliseconds, rates and utilisations are shares of 1, depths are counts.
    """

    recall_latency_p50: float
    recall_latency_p95: float
    recall_latency_p99: float
    cache_hit_rate: float
    neo4j_pool_util: float
    qdrant_queue_depth: float
    error_rate: float
    store_latency_p50: float
    store_latency_p95: float
    store_latency_p99: float
    lag_p95: float
    """Store to findable, milliseconds."""
    clusters: float
    """Of the visible runs of all sessions."""
    clusters_merged: float
    """Of these, those that the visible run made of several; the next run keeps them."""
    clusters_split: float
    """The same of those that it made by splitting one."""
    unclustered_share: float
    """Of the episodes that were new to the visible runs: those that belong to no cluster."""
    consolidation_sampled: float
    """Episodes that were clustered by the run that was published last."""
    consolidation_seconds: float
    """That it took."""
    pending_episodes: float
    """The backlog: stored, and not yet taken to be embedded."""
    oldest_pending_seconds: float
    """Age of the oldest episode that is not embedded yet; nan where all are."""
    batch_fill: float
    """Share of ``embedding_claim_size`` that claims held, of those that found any."""
    hierarchical_gap: float
    """Share of flat results that searching by clusters missed, over the sampled queries."""
    stages: Mapping[str, StageFigures]
    counters: Mapping[str, int]
    """Totals since the process started."""
    window: Mapping[str, int]
    """What the same counters counted in the window."""
    gauges: Mapping[str, float]
    errors: int
    """Failures in the Error History."""
    last_failures: tuple[LastFailure, ...]
    """The newest of the Error History, oldest first: PUBLISHED_FAILURES of each process at most."""
    processes: int
    """How many processes these figures come from; 0 where none measured anything."""


class Metrics:
    """Thread-safe figures of one process; memory is bounded by the number of distinct names, not by traffic.

    ``clock`` is monotonic seconds. Names are dotted words such as ``recall`` or ``recall.fusion``.
    """

    def __init__(
        self,
        *,
        window_seconds: float = WINDOW_SECONDS,
        error_history_size: int = 500,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._step = window_seconds / SLICES
        self.errors = ErrorHistory(error_history_size)
        self._probes: dict[str, Callable[[], float]] = {}
        self._gauges: dict[str, float] = {}
        self._meters: dict[str, _Meter] = {}
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._metering = threading.Lock()
        self._slices: deque[_Slice] = deque(maxlen=SLICES + 1)
        self._totals: dict[str, int] = {}

    def reset(self) -> None:
        """Forget everything measured (a forked child starts at nothing, so that figures never count twice)."""
        self._start()
        self._gauges = {}
        self._probes = {}
        self._meters = {}
        self.errors = ErrorHistory(self.errors.size)

    # -- measuring

    def observe(self, stage: str, seconds: float) -> None:
        """Count one duration of a stage."""
        with self._lock:
            self._current().add(stage, seconds)

    def increment(self, name: str, n: int = 1) -> None:
        """Add ``n`` to a counter."""
        with self._lock:
            self._count(self._current(), name, n)

    def attempted(self, stage: str, seconds: float) -> None:
        """Count one duration of a stage that is an attempt as well, in one go: every store and recall pays for it."""
        with self._lock:
            piece = self._current()
            piece.add(stage, seconds)
            self._count(piece, ATTEMPTS, 1)

    def peak(self, name: str, value: float) -> None:
        """Take down one reading of a figure whose largest in the window matters; a counter of its name counts them."""
        with self._lock:
            piece = self._current()
            piece.peaks[name] = max(value, piece.peaks.get(name, value))
            self._count(piece, name, 1)

    def _count(self, piece: _Slice, name: str, n: int) -> None:
        piece.counts[name] = piece.counts.get(name, 0) + n
        self._totals[name] = self._totals.get(name, 0) + n

    def set_gauge(self, name: str, value: float) -> None:
        """Set a figure that goes up and down."""
        self._gauges[name] = value

    def probe(self, name: str, read: Callable[[], float]) -> None:
        """Read a gauge when it is asked for; the last probe of a name counts."""
        self._probes[name] = read

    def drop_probe(self, name: str, read: Callable[[], float]) -> None:
        """Take a probe back, where it is still the one in force."""
        if self._probes.get(name) == read:
            del self._probes[name]

    def meter(self, name: str, read: Callable[[], int]) -> None:
        """Count under ``name`` what a total that somebody else keeps grows by from now on, looked up when figures are
        read; the last meter of a name counts."""
        with self._metering:
            self._read_meter(name)
            self._meters[name] = _Meter(read, read())

    def drop_meter(self, name: str, read: Callable[[], int]) -> None:
        """Take a meter back, where it is still the one in force; what it measured stays counted."""
        with self._metering:
            if name in self._meters and self._meters[name].read == read:
                self._read_meter(name)
                del self._meters[name]

    def _read_meter(self, name: str) -> None:
        meter = self._meters.get(name)
        if meter is not None:
            now = meter.read()
            if now > meter.last:
                self.increment(name, now - meter.last)
            meter.last = now

    def timer(self, stage: str) -> AbstractContextManager[None]:
        """Measure the block as one duration of the stage, also where it raises."""
        return _Timer(self, stage)

    def operation(self, action: str) -> AbstractContextManager[None]:
        """Measure the block and count it in the error rate; a caller's mistake is neither timed nor a failure."""
        return _Operation(self, action)

    def failed(self, action: str, error: BaseException, n: int = 1) -> None:
        """Count ``n`` failures (not attempts) and keep one in the Error History."""
        self.increment(FAILURES, n)
        self.errors.add(action, error)

    def tried_in_vain(self, action: str, error: BaseException, n: int = 1) -> None:
        """Count ``n`` attempts that failed, all for the same reason: the Error History keeps one."""
        self.increment(ATTEMPTS, n)
        self.failed(action, error, n)

    def _current(self) -> _Slice:
        now = self._clock()
        if not self._slices or now - self._slices[-1].start >= self._step:
            self._slices.append(_Slice(now))
        return self._slices[-1]

    # -- reading

    def _live(self) -> list[_Slice]:
        oldest = self._clock() - self._step * SLICES
        return [s for s in self._slices if s.start + self._step > oldest]

    def sketch(self, stage: str) -> Sketch:
        """The stage's latencies over the window."""
        merged = Sketch()
        with self._lock:
            for piece in self._live():
                if stage in piece.sketches:
                    merged.merge(piece.sketches[stage])
        return merged

    def total(self, name: str) -> int:
        """What was counted under ``name`` since the process started."""
        with self._lock:
            return self._totals.get(name, 0)

    def gauges(self) -> dict[str, float]:
        """All gauges, probes read now."""
        values = dict(self._gauges)
        for name, read in list(self._probes.items()):
            try:
                values[name] = float(read())
            except (
                Exception
            ):  # a probe reads foreign objects (drivers, closed stores); a figure must never break its reader
                log.debug("gauge could not be read", extra={"action": "metrics.probe", "gauge": name}, exc_info=True)
                values[name] = math.nan
        return values

    def dump(self) -> dict[str, Any]:
        """The figures as JSON values, for ``summarise`` to merge with those of other processes.

        ``slices`` are the parts of the window, each with the seconds until it ``leaves`` it: whoever reads them later
        leaves out what is older than the window by then.
        """
        with self._metering:
            for name in list(self._meters):
                self._read_meter(name)
        with self._lock:
            end = self._clock() - self._step * (SLICES + 1)
            live = self._live()
            newest = [piece.dump(piece.start - end) for piece in live[-1:]]
            totals = dict(self._totals)
        # only the newest still grows: nobody has to wait for the others
        slices = [*(piece.dump(piece.start - end) for piece in live[:-1]), *newest]
        gauges = {name: value for name, value in self.gauges().items() if math.isfinite(value)}
        failures = self.errors.latest()
        last = [failure.public for failure in failures[-PUBLISHED_FAILURES:]]
        return {
            "slices": slices,
            "totals": totals,
            "gauges": gauges,
            "errors": len(failures),
            "last_failures": [[one.at.timestamp(), one.action, one.error, one.message] for one in last],
        }

    def snapshot(self) -> Snapshot:
        """The figures now."""
        from ww_core.observability.summary import summarise

        return summarise([self.dump()])


class _Timer(AbstractContextManager[None]):
    """A class, because a generator costs a third more, several times in every recall."""

    __slots__ = ("_metrics", "_name", "_start")

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._metrics = metrics
        self._name = name

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.observe(self._name, time.perf_counter() - self._start)


class _Operation(_Timer):
    __slots__ = ()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        metrics = self._metrics
        if error is None:
            metrics.attempted(self._name, time.perf_counter() - self._start)
        elif isinstance(error, Exception) and not isinstance(error, CALLERS_MISTAKES):
            metrics.attempted(self._name, time.perf_counter() - self._start)
            metrics.failed(self._name, error)
        else:
            metrics.increment(ATTEMPTS)


_process = Metrics()


def process_metrics() -> Metrics:
    """The one Metrics of this process."""
    return _process


os.register_at_fork(after_in_child=_process.reset)
