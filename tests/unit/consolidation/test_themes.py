"""The level above the clusters."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np

from ww_core.consolidation.themes import grouped, themes_of
from ww_core.models import Cluster, Vector

START = datetime(2026, 1, 1, tzinfo=UTC)


def some(number: int, *, topics: int = 3) -> tuple[list[Cluster], dict[str, Vector]]:
    """Clusters in turn around a few directions, each a minute older than the next."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(topics, 64))
    clusters, centroids = [], {}
    for i in range(number):
        row = axes[i % topics] + 0.3 * rng.normal(size=64)
        name = f"c{i:02}"
        centroids[name] = (row / np.linalg.norm(row)).astype(np.float32)
        clusters.append(Cluster(name, "s", f"label {i}", 10 + i, created_at=START + timedelta(minutes=i)))
    return clusters, centroids


def test_alike_clusters_are_in_one_theme() -> None:
    clusters, centroids = some(9)
    theme_of = grouped(clusters, centroids)
    assert theme_of == {f"c{i:02}": f"t{i % 3:02}" for i in range(9)}


def test_a_theme_keeps_its_id_as_clusters_come_and_go() -> None:
    clusters, centroids = some(12)
    before, after = grouped(clusters[:9], centroids), grouped(clusters, centroids)
    assert set(before.values()) <= set(after.values())
    assert all(after[name] == theme for name, theme in before.items())
    assert set(grouped(clusters[:1] + clusters[2:], centroids).values()) > {"t00", "t02"}


def test_few_clusters_have_no_themes_and_gone_ones_are_in_none() -> None:
    clusters, centroids = some(7)
    assert grouped(clusters, centroids) == {}
    clusters, centroids = some(9)
    gone = [Cluster("c99", "s", "gone", 0, change="gone"), *clusters]
    assert "c99" not in grouped(gone, centroids)


def test_a_theme_is_named_after_its_largest_clusters_and_the_largest_comes_first() -> None:
    clusters, centroids = some(9)
    first, *_ = themes_of(clusters, grouped(clusters, centroids))
    assert (first.theme_id, first.label, first.size) == ("t02", "label 8 · label 5", 12 + 15 + 18)
    assert first.cluster_ids == ("c08", "c05", "c02")
    assert themes_of(clusters[:3], grouped(clusters, centroids))[0].cluster_ids == ("c02",)
