"""The same work before and after a change, turn by turn, and whether the change helps."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TypeAlias

from ww.bench.figure import Figure, wall

Work: TypeAlias = Callable[[int], object]
"""Takes the number of the turn."""

HELPS = 1.1
"""Ratio from which a change helps; noise reaches what is below it."""


def gain(name: str, before: Work, after: Work, turns: int, *, peer: str, note: str) -> Figure:
    """Median milliseconds of a turn after the change, beside those before it: the ratio is what it gains."""
    slow: list[float] = []
    quick: list[float] = []
    before(0)
    after(0)
    for i in range(turns):
        pair = ((slow, before), (quick, after))
        for seconds, work in pair if i % 2 else reversed(pair):  # the second of a pair finds the data warm
            seconds.append(wall(work, i))
    was, now = (1000 * statistics.median(seconds) for seconds in (slow, quick))
    return Figure(name, now, "ms", peer=was, peer_name=peer, low_is_good=True, note=f"{note}: {verdict(was / now)}")


def verdict(ratio: float) -> str:
    """What a ratio of before to after means, in words."""
    if ratio >= HELPS:
        return "helps"
    return "does not help here" if ratio > 1 / HELPS else "costs time here"
