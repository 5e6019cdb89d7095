"""A mergeable sketch of latencies whose quantiles are accurate within 1% in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

RELATIVE_ACCURACY = 0.0075
"""Largest relative error of a quantile; below the promised 1% so that rounding never breaks it."""
SMALLEST = 1e-7
"""Seconds; anything faster counts as this."""
LARGEST = 1e5
"""Seconds (about a day); anything slower counts as this."""

_GAMMA = (1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY)
_LOG_GAMMA = math.log(_GAMMA)


class Sketch:
    """Counts of values in logarithmic buckets (about 1 850 at most, only those used take memory).

    Notes
    -----
    Bucket ``i`` holds values in ``(gamma**(i-1), gamma**i]``, and ``2 * gamma**i / (gamma + 1)`` is within the
    relative accuracy of each of them: the scheme of Masson, Rim and Lee, "DDSketch", VLDB 2019.

    Examples
    --------
    >>> sketch = Sketch()
    >>> for ms in range(1, 1001):
    ...     sketch.add(ms / 1000)
    >>> abs(sketch.quantile(0.5) - 0.5) < 0.005
    True
    """

    __slots__ = ("buckets", "count", "total")

    def __init__(self) -> None:
        self.buckets: dict[int, int] = {}
        self.count = 0
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one value, seconds; not-a-number is ignored."""
        if not SMALLEST <= seconds <= LARGEST:
            if seconds != seconds:
                return
            seconds = min(max(seconds, SMALLEST), LARGEST)
        index = math.ceil(math.log(seconds) / _LOG_GAMMA)
        self.buckets[index] = self.buckets.get(index, 0) + 1
        self.count += 1
        self.total += seconds

    def merge(self, other: Sketch) -> None:
        """Add everything that ``other`` counted."""
        for index, n in other.buckets.items():
            self.buckets[index] = self.buckets.get(index, 0) + n
        self.count += other.count
        self.total += other.total

    def quantile(self, q: float) -> float:
        """The value below which a share ``q`` (0 to 1) lies, between the two nearest in proportion, as numpy has it.

        Seconds; nan where nothing was counted."""
        if not self.count:
            return math.nan
        rank = q * (self.count - 1)
        lower, upper = math.floor(rank), math.ceil(rank)
        seen, below, value = 0, math.nan, math.nan
        for index in sorted(self.buckets):
            value = 2 * _GAMMA**index / (_GAMMA + 1)
            if seen <= lower:
                below = value
            seen += self.buckets[index]
            if seen > upper:
                break
        return float(below + (rank - lower) * (value - below))

    def mean(self) -> float:
        """Seconds; nan where nothing was counted."""
        return self.total / self.count if self.count else math.nan

    def dump(self) -> list[float]:
        """The sketch as short JSON, for another process to merge: the total, then of each bucket its distance from the
        one before (from 0) and its count."""
        told: list[float] = [round(self.total, 6)]
        before = 0
        for index in sorted(self.buckets):
            told += (index - before, self.buckets[index])
            before = index
        return told

    @classmethod
    def load(cls, told: Sequence[float]) -> Sketch:
        """The sketch that ``dump`` wrote."""
        sketch, index = cls(), 0
        total, *pairs = told
        for distance, n in zip(pairs[::2], pairs[1::2], strict=True):
            index += int(distance)
            sketch.buckets[index] = int(n)
        sketch.count = sum(sketch.buckets.values())
        sketch.total = float(total)
        return sketch
