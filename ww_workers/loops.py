"""A thread that does one thing again and again: when it is woken, and when it said it would."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

AFTER_ERROR_SECONDS = 5.0


class Loop:
    """Calls ``step`` until it is stopped. ``step`` returns the seconds until it wants to be called again."""

    def __init__(self, step: Callable[[], float], *, name: str, first: float = 0.0) -> None:
        self._step = step
        self._first = first
        self._wake = threading.Event()
        self._stopped = threading.Event()
        # a daemon: whoever owns the loop stops it at exit, in bounded time
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stopped(self) -> bool:
        """Whether the loop is to end; the step looks here between two pieces of work."""
        return self._stopped.is_set()

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Call the step as soon as the one under way is over."""
        self._wake.set()

    def stop(self) -> None:
        """Tell the loop to end; returns at once."""
        self._stopped.set()
        self._wake.set()

    def join(self, deadline: float) -> bool:
        """Wait for the end until ``time.monotonic()`` reaches ``deadline``; whether the thread is over."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, deadline - time.monotonic()))
        return not self._thread.is_alive()

    def _run(self) -> None:
        delay = self._first
        while not self.stopped:
            self._wake.wait(delay)
            self._wake.clear()
            if self.stopped:
                return
            try:
                delay = self._step()
            except Exception:  # a thread that dies of one bad step would leave everything after it undone
                log.exception("background work failed", extra={"action": "loop.failed"})
                delay = AFTER_ERROR_SECONDS
