"""Vectors with noise around them, and random ones around topics: what is timed on them needs no model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Vector

DIMENSION = 384
SPREAD = 0.6
"""Length of the noise beside a topic of length 1: cosines of about 0.74 within a topic, as real ones have."""


class Spread:
    """``size`` rows around sqrt(size)/2 topics: ``matrix`` float32 (size, 384)."""

    def __init__(self, size: int, *, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        count = max(8, round(size**0.5 / 2))
        topics = unit(rng.standard_normal((count, DIMENSION)))
        self.matrix = noisy(rng, topics[rng.integers(0, count, size)], SPREAD)


def noisy(rng: np.random.Generator, rows: Vector, length: float) -> Vector:
    """Unit vectors near the unit ``rows`` float32 (n, d): each with noise of about that length."""
    scale = np.float32(length / rows.shape[1] ** 0.5)
    return unit(rows + scale * rng.standard_normal(rows.shape, np.float32))


def unit(rows: NDArray[np.float64] | Vector) -> Vector:
    """Rows of unit length, float32."""
    long: Vector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return long
