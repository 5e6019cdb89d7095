"""One call on a server that somebody waits for; once it is given up it changes nothing any more."""

from __future__ import annotations

import threading


class GivenUp(Exception):
    """Nobody waits for the call: what it did so far is rolled back."""


class Call:
    """Shared by who waits and by the thread that does it. ``opened`` is which opening of the store it was made on."""

    def __init__(self, opened: int, *, writes: bool) -> None:
        self.opened = opened
        self.writes = writes
        self._lock = threading.Lock()
        self._given_up = self._committing = False

    def begin(self) -> None:
        """Before a transaction. Raises GivenUp."""
        self._go_on(committing=False)

    def commit(self) -> None:
        """Before its commit, which nothing can take back. Raises GivenUp."""
        self._go_on(committing=True)

    def give_up(self) -> str:
        """Wait no longer; what became of what it writes, as the end of a sentence."""
        with self._lock:
            self._given_up = True
        if not self.writes:
            return ""
        return "; it may have been written all the same" if self._committing else "; nothing was written"

    def _go_on(self, *, committing: bool) -> None:
        with self._lock:
            if self._given_up:
                raise GivenUp
            self._committing = committing
