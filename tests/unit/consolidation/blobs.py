"""Unit vectors around known centres, for tests that need to know the answer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Vector


def blobs(
    clusters: int, size: int, *, noise: int = 0, spread: float = 0.25, dimension: int = 64, seed: int = 0
) -> tuple[Vector, NDArray[np.int32]]:
    """Rows (clusters * size + noise, d) in random order and their true labels, -1 for the ``noise`` rows."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dimension))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(clusters), size)
    near = centres[labels] + rng.normal(size=(len(labels), dimension)) * spread / np.sqrt(dimension)
    rows = np.vstack([near, rng.normal(size=(noise, dimension))])
    labels = np.concatenate([labels, np.full(noise, -1)])
    order = rng.permutation(len(rows))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows[order].astype(np.float32), labels[order].astype(np.int32)
