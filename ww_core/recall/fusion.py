"""Fusion: the parts of a score on one scale, weighted and added up.

Parts that a search scored are z-scores per query over the candidates: what counts is how far a candidate stands out
among its rivals, whatever the scale of the signal. Parts that are known of an episode by itself (recency, importance,
...) are already between 0 and 1 and stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

_FLAT = 1e-6
"""A spread below this is noise of single precision: the part tells the candidates apart no more."""


def zscore(values: Scores) -> Scores:
    """Values float32 (n,) with mean 0 and standard deviation 1; all 0 where they do not differ."""
    if values.size == 0:
        return values.astype(np.float32)
    centred = values - values.mean(dtype=np.float64)
    spread = float(np.sqrt(np.mean(np.square(centred, dtype=np.float64))))
    if not spread > _FLAT:
        return np.zeros(values.shape, np.float32)
    scaled: Scores = (centred / spread).astype(np.float32)
    return scaled


@dataclass(frozen=True, slots=True)
class Fused:
    """``total`` float32 (n,) is the sum of ``parts``, each float32 (n,), already weighted."""

    total: Scores
    parts: Mapping[str, Scores]

    def plus(self, name: str, values: Scores) -> Fused:
        """With one more part, already weighted."""
        return Fused(total=self.total + values, parts={**self.parts, name: values})


def fuse(
    searched: Mapping[str, Scores], known: Mapping[str, Scores], weights: Mapping[str, float], *, size: int
) -> Fused:
    """Add up ``searched`` parts (normalised here) and ``known`` parts of ``size`` candidates under their weights.

    A part without a weight, or with weight 0, is left out.
    """
    parts: dict[str, Scores] = {}
    for name, values in searched.items():
        weight = weights.get(name, 0.0)
        if weight:
            parts[name] = np.float32(weight) * zscore(values)
    for name, values in known.items():
        weight = weights.get(name, 0.0)
        if weight:
            parts[name] = np.float32(weight) * values.astype(np.float32)
    total = np.zeros(size, np.float32)
    for values in parts.values():
        total += values
    return Fused(total=total, parts=parts)
