"""The doorbell: the queues that background work waits in, and how a store call wakes who works on them."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Queue(StrEnum):
    """The task queues, by what their consumers need."""

    EMBED = "ww.embed"
    QUERY = "ww.query"
    CONSOLIDATE = "ww.consolidate"
    MAINTAIN = "ww"


class Doorbell(Protocol):
    """Wakes whoever embeds. Losing a ring costs time, never an episode: the sweep rings again."""

    def ring(self) -> None:
        """Return at once; never raises, never talks to the network on this thread."""

    def close(self) -> None: ...
