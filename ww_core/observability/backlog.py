"""How much waits in the stores, as gauges."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import fields
from typing import Protocol

from ww_core.models import Counts
from ww_core.observability.summary import BACKLOG_AGE, EPISODES

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0
"""How long who publishes all figures waits for one that a server has to tell."""

FRESH_SECONDS = 2.0
"""Gauges read together share one look at the store."""
LARGEST_SHARE = 0.01
"""Of the time may go into looking: counting many millions of rows takes a while, and is then done less often."""


class Record(Protocol):
    """The part of the graph store that counts."""

    def counts(self, session_id: str | None = None) -> Counts: ...

    def oldest_pending(self) -> float | None: ...


class Backlog:
    """Looks at the store when its gauges are read. ``clock`` is monotonic seconds."""

    def __init__(self, record: Record, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._record = record
        self._clock = clock
        self._lock = threading.Lock()
        self._stale_at = -math.inf
        self._gauges: dict[str, float] = {}

    def probes(self) -> dict[str, Callable[[], float]]:
        """What reads each gauge, by name; nan where nothing is pending."""
        names = [EPISODES + field.name for field in fields(Counts)]
        return {name: (lambda name=name: self._read(name)) for name in [*names, BACKLOG_AGE]}  # type: ignore[misc]

    def _read(self, name: str) -> float:
        with self._lock:
            started = self._clock()
            if started >= self._stale_at:
                counts, oldest = self._record.counts(), self._record.oldest_pending()
                self._gauges = {EPISODES + field.name: float(getattr(counts, field.name)) for field in fields(counts)}
                self._gauges[BACKLOG_AGE] = math.nan if oldest is None else oldest
                now = self._clock()
                self._stale_at = now + max(FRESH_SECONDS, (now - started) / LARGEST_SHARE)
            return self._gauges[name]


class Elsewhere:
    """A gauge that a server tells, read on a thread of its own: one that does not answer holds up no other figure.

    ``read`` may raise; then, and where it takes longer than PATIENCE_SECONDS, there is no figure.
    """

    def __init__(self, read: Callable[[], float], *, patience: float = PATIENCE_SECONDS) -> None:
        self._read = read
        self._patience = patience
        self._value = math.nan
        self._thread: threading.Thread | None = None

    def __call__(self) -> float:
        """What the server says now; nan where it says nothing in time."""
        if self._thread is None or not self._thread.is_alive():
            self._value = math.nan
            self._thread = threading.Thread(target=self._ask, name="ww-gauge", daemon=True)
            self._thread.start()
        self._thread.join(self._patience)
        return math.nan if self._thread.is_alive() else self._value

    def _ask(self) -> None:
        try:
            self._value = self._read()
        except Exception:  # a driver's; a figure must never break its reader
            log.debug("gauge could not be read", extra={"action": "metrics.probe"}, exc_info=True)
