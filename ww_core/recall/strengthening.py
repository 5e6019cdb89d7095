"""Recalled episodes gain stability, archived ones live again: noted by the query, written later by another thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime

from ww_core.consolidation.decay import initial_stability, strengthened
from ww_core.errors import Unavailable
from ww_core.models import Episode
from ww_core.stores.ports import GraphStore, Strength

log = logging.getLogger(__name__)

GATHER_SECONDS = 1.0
"""Recalls within this time of each other are written together."""
MOST_WAITING = 10_000
"""Episodes noted and not yet written; more are let go, as a memory would."""
SECONDS_PER_DAY = 86_400.0


class Strengthener:
    """Keeps the path of a query free: ``note`` only takes down names. Thread-safe; its thread starts when needed."""

    def __init__(
        self, graph: Callable[[], GraphStore], clock: Callable[[], datetime], *, ring: Callable[[], None] = lambda: None
    ) -> None:
        """``ring`` wakes who brings the vectors of what lives again in line with the record."""
        self._graph = graph
        self._clock = clock
        self._ring = ring
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._waiting: dict[str, datetime] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, episode_ids: Iterable[str]) -> None:
        """The episodes were recalled just now. Never raises and never waits for a store."""
        now = self._clock()
        with self._lock:
            self._waiting.update(dict.fromkeys(episode_ids, now))
            if len(self._waiting) > MOST_WAITING:
                self._waiting.clear()
            if self._thread is None and self._waiting and not self._stopped.is_set():
                # a daemon: close writes what is left, and what a crash loses is a little strength
                self._thread = threading.Thread(target=self._run, name="ww-strengthen", daemon=True)
                self._thread.start()

    def flush(self) -> int:
        """Write what was noted; how many episodes that were. Raises StoreUnavailable."""
        with self._writing:
            with self._lock:
                noted, self._waiting = self._waiting, {}
            if not noted:
                return 0
            graph = self._graph()
            rows = graph.get(sorted(noted))
            changes = [_recalled(row, noted[name]) for name, row in rows.items()]
            if changes:
                graph.strengthen(changes)
            if archived := sorted(name for name, row in rows.items() if row.archived):
                graph.archive(archived, archived=False)
                self._ring()
            return len(changes)

    def close(self) -> None:
        """Write what is left and end the thread."""
        self._stopped.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=5 * GATHER_SECONDS)
        self._try()

    def _run(self) -> None:
        while not self._stopped.wait(GATHER_SECONDS):
            self._try()
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return

    def _try(self) -> None:
        try:
            self.flush()
        except Unavailable as error:
            log.info("recalls were not recorded: %s", error, extra={"action": "recall.strengthen"})
        except Exception:  # a thread nobody waits for: nothing else would say so
            log.exception("recalls were not recorded", extra={"action": "recall.strengthen"})


def _recalled(episode: Episode, at: datetime) -> Strength:
    stability = episode.stability or initial_stability(episode.importance)
    since = episode.last_recalled_at or episode.timestamp or at
    days = max(0.0, (at - since).total_seconds() / SECONDS_PER_DAY)
    return Strength(episode.episode_id, strengthened(stability, days), at)
