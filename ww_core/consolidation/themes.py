"""The level above the clusters: themes, each a few clusters that are about the same.

They are found from a run's centroids when it is published, and kept with its clusters: which theme each is in, and no
word of any. A theme has the id of its oldest cluster, and so keeps it as clusters come and grow; its label is made of
its largest clusters' labels when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ww_core.models import Cluster, Theme, Vector

FEWEST = 8
"""Clusters; fewer are seen at a glance."""
NAMING = 2
"""Clusters whose labels name a theme."""


def with_themes(clusters: Iterable[Cluster], centroids: Mapping[str, Vector]) -> tuple[Cluster, ...]:
    """The clusters of one session, each with its theme, none of any where they are few."""
    clusters = tuple(clusters)
    theme_of = grouped(clusters, centroids)
    return tuple(replace(one, theme_id=theme_of.get(one.cluster_id, "")) for one in clusters)


def grouped(clusters: Iterable[Cluster], centroids: Mapping[str, Vector]) -> dict[str, str]:
    """Cluster id -> theme id, for all that have a centroid (d,) and are not gone; empty where they are few.

    Ward's method on the centred centroids, cut at the square root of their number: as many themes as each has clusters.
    """
    alive = sorted(
        (c for c in clusters if c.change != "gone" and c.cluster_id in centroids), key=lambda c: c.cluster_id
    )
    if len(alive) < FEWEST:
        return {}
    from scipy.cluster.hierarchy import fcluster, linkage

    rows = np.stack([centroids[c.cluster_id] for c in alive]).astype(np.float64)
    rows -= rows.mean(axis=0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    numbers = fcluster(linkage(rows, "ward"), round(len(alive) ** 0.5), criterion="maxclust")
    found: dict[str, str] = {}
    for number in np.unique(numbers):
        members = [alive[row] for row in np.flatnonzero(numbers == number)]
        oldest = min(members, key=lambda c: (c.created_at is None, c.created_at, c.cluster_id))
        found |= dict.fromkeys((c.cluster_id for c in members), "t" + oldest.cluster_id.removeprefix("c"))
    return found


def themes_of(clusters: Sequence[Cluster]) -> tuple[Theme, ...]:
    """The themes that the clusters are in, by session, and the largest first."""
    members: dict[tuple[str, str], list[Cluster]] = {}
    for cluster in sorted(clusters, key=lambda c: (-c.size, c.cluster_id)):
        if cluster.theme_id:
            members.setdefault((cluster.session_id, cluster.theme_id), []).append(cluster)
    themes = [
        Theme(
            theme_id=theme_id,
            session_id=own[0].session_id,
            label=" · ".join(c.label for c in own[:NAMING]),
            size=sum(c.size for c in own),
            cluster_ids=tuple(c.cluster_id for c in own),
        )
        for (_, theme_id), own in members.items()
    ]
    return tuple(sorted(themes, key=lambda theme: (theme.session_id, -theme.size, theme.theme_id)))
