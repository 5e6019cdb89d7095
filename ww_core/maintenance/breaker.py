"""A circuit breaker: after an outage, wait longer each time before trying again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0  # the sweep looks this often as well


class CircuitBreaker:
    """Doubles its delay with every failure in a row, with jitter of half the delay. Not thread-safe."""

    def __init__(
        self,
        *,
        first: float = FIRST_SECONDS,
        longest: float = LONGEST_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._longest = longest
        self._clock = clock
        self._random = random
        self._until = 0.0
        self.failures = 0
        """Failures in a row."""

    def failed(self) -> float:
        """Open the circuit; the seconds until it may be tried again."""
        full = min(self._longest, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        delay = full * (0.5 + 0.5 * self._random())
        self._until = self._clock() + delay
        return delay

    def succeeded(self) -> None:
        """Close the circuit."""
        self.failures = 0
        self._until = 0.0

    @property
    def remaining(self) -> float:
        """Seconds until the next try is due; 0 where the circuit is closed or half open."""
        return max(0.0, self._until - self._clock()) if self.failures else 0.0
