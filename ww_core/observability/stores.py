"""What the stores say of themselves, as gauges: how much waits, and what consolidation has come to."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Protocol

from ww_core.errors import WorldWeaverError
from ww_core.models import Counts
from ww_core.observability.summary import BACKLOG_AGE, EPISODES, STANDING
from ww_core.stores.ports import Standing

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

    def standing(self) -> Standing: ...


class Looks:
    """Gauges of these names that one ``look`` at a store gives together, where it has them; it may raise, and then
    there are none. ``clock`` is monotonic seconds."""

    def __init__(
        self,
        names: Iterable[str],
        look: Callable[[], Mapping[str, float]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names = tuple(names)
        self._look = look
        self._clock = clock
        self._lock = threading.Lock()
        self._stale_at = -math.inf
        self._gauges: Mapping[str, float] = {}

    def probes(self) -> dict[str, Callable[[], float]]:
        """What reads each gauge, by name; nan where the store has no such figure, or does not answer."""
        return {name: partial(self._read, name) for name in self._names}

    def _read(self, name: str) -> float:
        with self._lock:
            started = self._clock()
            if started >= self._stale_at:
                self._gauges, spent = {}, 0.0
                try:
                    self._gauges = self._look()
                    spent = self._clock() - started
                except WorldWeaverError:  # of a store that is away, which is asked again soon
                    log.debug("store could not be counted", extra={"action": "metrics.probe"}, exc_info=True)
                self._stale_at = self._clock() + max(FRESH_SECONDS, spent / LARGEST_SHARE)
            return self._gauges.get(name, math.nan)


def backlog(record: Record, *, clock: Callable[[], float] = time.monotonic) -> Looks:
    """Episodes by state, and the age of the oldest pending one."""
    states = [field.name for field in fields(Counts)]

    def look() -> dict[str, float]:
        counts, oldest = record.counts(), record.oldest_pending()
        gauges = {EPISODES + state: float(getattr(counts, state)) for state in states}
        return gauges if oldest is None else {**gauges, BACKLOG_AGE: oldest}

    return Looks([*(EPISODES + state for state in states), BACKLOG_AGE], look, clock=clock)


def consolidated(record: Record, *, clock: Callable[[], float] = time.monotonic) -> Looks:
    """What the visible runs come to; nothing where there is none."""
    names = [field.name for field in fields(Standing)]

    def look() -> dict[str, float]:
        found = record.standing()
        return {STANDING + name: float(getattr(found, name)) for name in names} if found.sessions else {}

    return Looks([STANDING + name for name in names], look, clock=clock)


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
