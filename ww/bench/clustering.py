"""Consolidation's clustering: its time beside HDBSCAN's own paths, and its agreement with true labels."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from ww.bench import data
from ww.bench.figure import Bench, Figure, skipped, wall
from ww.bench.spread import Spread
from ww_core.consolidation.clustering import cluster
from ww_core.embedding import EmbeddingService
from ww_core.models import Vector

SECONDS_TARGET = 0.5
ROUNDS = 3
SIZE, SAMPLES = 10, 5


def time_taken(bench: Bench) -> list[Figure]:
    """2 000 vectors, beside hdbscan's default path and scikit-learn's HDBSCAN on the same rows."""
    rows = Spread(bench.scale.sampled).matrix
    cluster(rows[:200])
    own = statistics.median(wall(lambda: cluster(rows)) for _ in range(ROUNDS))
    peer, other = wall(lambda: _hdbscan(rows)), wall(lambda: _sklearn(rows))
    note = f"{len(rows):,} vectors"
    ours = ("s", SECONDS_TARGET if len(rows) >= 2000 else float("nan"))
    return [
        Figure("consolidation_2000", own, *ours, peer, "hdbscan, default path", low_is_good=True, note=note),
        Figure("consolidation_against_sklearn", own, "s", peer=other, peer_name="scikit-learn's HDBSCAN",
               low_is_good=True, note=note),
    ]  # fmt: skip


def quality(bench: Bench) -> list[Figure]:
    """Adjusted Rand index over all texts, beside HDBSCAN on the raw vectors; one setting for both sets."""
    figures = []
    sets: tuple[tuple[str, str, float, Callable[[], data.Labelled]], ...] = (
        ("banking77_ari", data.BANKING, 0.57, data.banking),
        ("clinc150_ari", data.CLINC, 0.72, data.clinc),
    )
    service = EmbeddingService(bench.settings)
    try:
        for name, file, target, load in sets:
            if why := data.absent(file):
                figures.append(skipped(name, "ARI", why))
                continue
            bench.say(f"{name}: embedding")
            figures.append(_agreement(name, target, load(), service))
    finally:
        service.close()
    return figures


def _agreement(name: str, target: float, labelled: data.Labelled, service: EmbeddingService) -> Figure:
    from sklearn.metrics import adjusted_rand_score

    rows = service.encode(labelled.texts)
    own = float(adjusted_rand_score(labelled.labels, cluster(rows).nearest))
    raw = float(adjusted_rand_score(labelled.labels, _with_the_rest(rows, _hdbscan(rows))))
    return Figure(name, own, "ARI", target, raw, "HDBSCAN on the vectors", note=f"{len(rows):,} texts")


def _hdbscan(rows: Vector) -> np.ndarray:
    import hdbscan

    found = hdbscan.HDBSCAN(min_cluster_size=SIZE, min_samples=SAMPLES, core_dist_n_jobs=1)
    labels: np.ndarray = found.fit(rows.astype(np.float64)).labels_
    return labels


def _sklearn(rows: Vector) -> np.ndarray:
    from sklearn.cluster import HDBSCAN

    found = HDBSCAN(min_cluster_size=SIZE, min_samples=SAMPLES, copy=True)
    labels: np.ndarray = found.fit(rows.astype(np.float64)).labels_
    return labels


def _with_the_rest(rows: Vector, labels: np.ndarray) -> np.ndarray:
    """Noise at its nearest cluster, as ours is."""
    if labels.max() < 0:
        return labels
    means = np.stack([rows[labels == c].mean(axis=0) for c in range(labels.max() + 1)])
    return np.where(labels < 0, (rows @ means.T).argmax(axis=1), labels)
