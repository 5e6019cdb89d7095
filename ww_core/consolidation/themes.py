"""The level above the clusters: themes, each a few clusters that are about the same.

They are found from a run's centroids when it is published, and kept by run as a fact: which cluster is in which theme,
and no word of any. A theme has the id of its oldest cluster, and so keeps it as clusters come and grow; its label is
made of its largest clusters' labels when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from ww_core.models import Cluster, Theme, Vector
from ww_core.stores.points import digest
from ww_core.stores.ports import GraphStore

FEWEST = 8
"""Clusters; fewer are seen at a glance."""
NAMING = 2
"""Clusters whose labels name a theme."""


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


def themes_of(clusters: Sequence[Cluster], theme_of: Mapping[str, str]) -> tuple[Theme, ...]:
    """The themes of one session's clusters, largest first."""
    members: dict[str, list[Cluster]] = {}
    for cluster in sorted(clusters, key=lambda c: (-c.size, c.cluster_id)):
        theme_id = theme_of.get(cluster.cluster_id)
        if theme_id is not None:
            members.setdefault(theme_id, []).append(cluster)
    themes = [
        Theme(
            theme_id=theme_id,
            session_id=own[0].session_id,
            label=" · ".join(c.label for c in own[:NAMING]),
            size=sum(c.size for c in own),
            cluster_ids=tuple(c.cluster_id for c in own),
        )
        for theme_id, own in members.items()
    ]
    return tuple(sorted(themes, key=lambda theme: (-theme.size, theme.theme_id)))


def read(graph: GraphStore, session_id: str, run_id: str) -> dict[str, str]:
    """Cluster id -> theme id in a run that is kept."""
    return _read(graph, session_id).get(run_id, {})


def write(graph: GraphStore, session_id: str, run_id: str, theme_of: Mapping[str, str]) -> None:
    """Keep a run's, which readers see once the run is visible."""
    graph.put_fact(_key(session_id), json.dumps(_read(graph, session_id) | {run_id: dict(theme_of)}))


def prune(graph: GraphStore, session_id: str, kept: Collection[str]) -> None:
    """Forget those of other runs."""
    found = _read(graph, session_id)
    if found.keys() - set(kept):
        graph.put_fact(_key(session_id), json.dumps({run: found[run] for run in found if run in kept}))


def drop(graph: GraphStore, session_id: str) -> None:
    """Forget the session's."""
    graph.drop_fact(_key(session_id))


def _read(graph: GraphStore, session_id: str) -> dict[str, dict[str, str]]:
    kept = graph.get_fact(_key(session_id))
    found: dict[str, dict[str, str]] = json.loads(kept) if kept else {}
    return found


def _key(session_id: str) -> str:
    return f"consolidation.themes:{digest(session_id)}"
