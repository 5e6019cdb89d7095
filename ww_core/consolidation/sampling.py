"""Which episodes a run clusters: new ones spread evenly over time, and exemplars of the clusters there are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

POOL = 4
"""Times the cap: rows that are read and help to sharpen those that are clustered, which are up to the cap. They cost
little more than a matrix product, and a sample sharpened by its like is worth nearly as much as all of it."""
EXEMPLARS_PER_CLUSTER = 64
"""Most exemplars a cluster keeps: beyond that they say nothing new about its shape."""
EXEMPLAR_SHARE = 0.5
"""Of the rows read, at most, for exemplars while there are enough new episodes for the rest."""


def spread_over_time(n: int, budget: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Ascending indices of ``budget`` of ``n`` rows in order of time: one drawn from each of equal stretches."""
    if n <= budget:
        return np.arange(n)
    edges = np.linspace(0, n, budget + 1)
    low = np.floor(edges[:-1]).astype(np.int64)
    high = np.maximum(np.floor(edges[1:]).astype(np.int64), low + 1)
    return np.minimum(rng.integers(low, high), n - 1)


def share_out(sizes: Sequence[int], budget: int) -> list[int]:
    """How many of ``budget`` rows each stratum gets: in proportion to the square root of its size, never above it.

    Square roots give small clusters enough exemplars to be seen as dense, without a large one losing its shape.
    """
    if sum(sizes) <= budget:
        return list(sizes)
    given = np.zeros(len(sizes), dtype=np.int64)
    limit = np.asarray(sizes, dtype=np.int64)
    weight = np.sqrt(limit)
    while (left := budget - int(given.sum())) > 0:
        open_ = given < limit
        share = np.where(open_, weight / weight[open_].sum() * left, 0.0)
        step = np.minimum(np.floor(share).astype(np.int64), limit - given)
        if not step.any():
            step[np.argsort(-share, kind="stable")[:left]] = 1
            step = np.minimum(step, limit - given)
        given += step
    return [int(count) for count in given]


def split_budget(new: int, exemplars: int, cap: int) -> tuple[int, int]:
    """How much of the rows that may be read goes to new episodes and how much to exemplars."""
    kept = min(exemplars, max(cap - new, int(cap * EXEMPLAR_SHARE)))
    return min(new, cap - kept), kept


def draw(items: Sequence[str], count: int, rng: np.random.Generator) -> tuple[str, ...]:
    """``count`` of the items without repetition, in their order; all of them where there are no more."""
    if len(items) <= count:
        return tuple(items)
    chosen = np.sort(rng.choice(len(items), size=count, replace=False))
    return tuple(items[i] for i in chosen)
