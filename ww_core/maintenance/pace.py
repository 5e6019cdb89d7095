"""How many texts to embed at once, so that each step takes about a second whatever the machine and the texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

STEP_SECONDS = 1.0
"""A drain that is told to stop finishes its step: a shutdown within 5 s leaves room for a slow one."""
FIRST_RATE = 10_000.0  # characters per second before anything was measured: a slow core
MOST_TEXTS = 512
ROUND = 64  # full forward passes: common batch sizes divide it
FLOOR_CHARS = 64  # a short text costs as much as one of this length

T = TypeVar("T")


class Pace:
    """Learns how many characters a second are embedded and cuts a list into steps of about STEP_SECONDS."""

    def __init__(self, *, step_seconds: float = STEP_SECONDS, rate: float = FIRST_RATE) -> None:
        self._step_seconds = step_seconds
        self.rate = rate
        """Characters per second."""

    def steps(self, items: Sequence[T], length: Callable[[T], int]) -> Iterator[list[T]]:
        """Consecutive parts of ``items``; each part is sized when it is asked for, by what was learned until then."""
        start = 0
        while start < len(items):
            budget = self.rate * self._step_seconds
            end = start
            spent = 0
            while end < len(items) and end - start < MOST_TEXTS:
                spent += max(FLOOR_CHARS, length(items[end]))
                if spent > budget and end > start:
                    break
                end += 1
            if end < len(items) and end - start > ROUND:
                end -= (end - start) % ROUND
            yield list(items[start:end])
            start = end

    def learned(self, lengths: Sequence[int], seconds: float) -> None:
        """A step of these texts (characters each) took that long."""
        if seconds <= 0:
            return
        measured = sum(max(FLOOR_CHARS, n) for n in lengths) / seconds
        # fast to slow down, slower to speed up: one lucky step must not make the next one long
        self.rate += (measured - self.rate) * (0.3 if measured > self.rate else 0.7)
