"""Which found cluster is which known one: optimal matching, so that ids, labels and history survive a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ww_core.models import Change, Vector

OVERLAP_WEIGHT = 0.8
"""Shared members decide; the centroids' cosine settles the rest."""
SAME_OVERLAP = 0.15
"""Smallest share of common members (intersection over union) of two clusters that are one and the same."""
SAME_COSINE = 0.9
"""For clusters that share no sampled member: how alike their centroids have to be."""
PARENT_SHARE = 0.3
"""Of a known cluster's sampled members: a found one that holds so many descends from it."""
ABSORBED_SHARE = 0.5
"""The same for one that merges into another: most of it has to be there."""
PARENT_PART = 0.1
"""Of a found cluster: what came from a parent makes up at least this much of it."""


@dataclass(frozen=True, slots=True)
class Match:
    """What became of one found cluster. ``known`` and ``parents`` are indices of known clusters."""

    known: int | None
    """The known cluster whose id and history it carries on."""
    change: Change
    parents: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Matching:
    """``found``: one Match per found cluster; ``gone``: known clusters that none of them carries on."""

    found: tuple[Match, ...]
    gone: tuple[int, ...]


def match(
    found: NDArray[np.int32],
    known: NDArray[np.int32],
    *,
    found_centroids: Vector,
    known_centroids: Vector,
    weights: Vector | None = None,
) -> Matching:
    """Match found clusters to known ones.

    ``found`` and ``known`` (n,) are both labels of the same sampled rows, -1 for none; the centroids are unit rows
    (found clusters, d) and (known clusters, d). ``weights`` (n,): how many episodes each row stands for.
    """
    k, m = len(known_centroids), len(found_centroids)
    if not m or not k:
        return Matching(tuple(Match(None, "new") for _ in range(m)), tuple(range(k)))
    common = _overlap(found, known, m, k, weights)
    found_weight = _weight_of(found, m, weights)
    known_weight = common.sum(axis=0)
    old_found_weight = common.sum(axis=1)
    union = old_found_weight[:, None] + known_weight[None, :] - common
    overlap = common / np.maximum(union, 1e-9)
    alike = np.clip(found_centroids @ known_centroids.T, 0.0, 1.0)
    rows, columns = linear_sum_assignment(-(OVERLAP_WEIGHT * overlap + (1.0 - OVERLAP_WEIGHT) * alike))
    carried = {
        int(i): int(j)
        for i, j in zip(rows, columns, strict=True)
        if overlap[i, j] >= SAME_OVERLAP or (known_weight[j] == 0 and alike[i, j] >= SAME_COSINE)
    }
    descends = (common >= PARENT_SHARE * np.maximum(known_weight, 1e-9)) & (
        common >= PARENT_PART * np.maximum(found_weight, 1e-9)[:, None]
    )
    absorbed = descends & (common >= ABSORBED_SHARE * np.maximum(known_weight, 1e-9))
    matches = tuple(_describe(i, carried, descends, absorbed) for i in range(m))
    return Matching(matches, tuple(j for j in range(k) if j not in carried.values()))


def _describe(i: int, carried: dict[int, int], descends: NDArray[np.bool_], absorbed: NDArray[np.bool_]) -> Match:
    known = carried.get(i)
    parents = tuple(int(j) for j in np.flatnonzero(descends[i]))
    taken = set(carried.values())
    if known is None:
        return Match(None, "split" if parents else "new", parents)
    lost = {int(j) for j in np.flatnonzero(absorbed[i])} - taken
    if lost:
        return Match(known, "merged", tuple(sorted({known} | lost)))
    if descends[:, known].sum() > 1:
        return Match(known, "split", (known,))
    return Match(known, "kept")


def _overlap(
    found: NDArray[np.int32], known: NDArray[np.int32], m: int, k: int, weights: Vector | None
) -> NDArray[np.float64]:
    both = (found >= 0) & (known >= 0)
    table = np.zeros((m, k))
    np.add.at(table, (found[both], known[both]), 1.0 if weights is None else weights[both])
    return table


def _weight_of(labels: NDArray[np.int32], count: int, weights: Vector | None) -> NDArray[np.float64]:
    inside = labels >= 0
    return np.bincount(labels[inside], None if weights is None else weights[inside], minlength=count).astype(float)
