"""A clustered memory of any size without a model: episodes around random directions, in real embedded stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.embedding.encoder import Kind, TokenVectors
from ww_core.models import Cluster, Episode, Vector
from ww_core.recall.service import Recaller
from ww_core.stores.ports import (
    BM25,
    BM25_CONTEXT,
    CONTENT,
    CONTEXT,
    Centroid,
    Fingerprint,
    Membership,
    Point,
    PointChange,
)

DIMENSION = 384
SPREAD = 0.6
"""Length of the noise beside a topic of length 1: cosines of about 0.74 within a topic, as real ones have."""
START = datetime(2024, 5, 1, 12, tzinfo=UTC)
SESSION = "bench"
WRITTEN_AT_ONCE = 4000
HOLDER = "bench"
"""Of every lease here."""


class Spread:
    """``size`` rows around sqrt(size)/2 topics, and queries near them. ``matrix`` (size, 384), ``queries`` (n, 384)."""

    def __init__(self, size: int, queries: int, *, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        count = max(8, round(size**0.5 / 2))
        self.topics = unit(rng.standard_normal((count, DIMENSION)))
        self.topic: NDArray[np.int64] = rng.integers(0, count, size)
        self.matrix = self._near(rng, self.topics[self.topic])
        self.queries = self._near(rng, self.topics[rng.integers(0, count, queries)])
        self.ids = [f"e{i}" for i in range(size)]

    def exact(self, query: Vector, k: int) -> list[str]:
        """The true nearest by a scan over everything with numpy."""
        similarity = self.matrix @ query
        best = np.argpartition(-similarity, k)[:k]
        return [self.ids[i] for i in best[np.argsort(-similarity[best])]]

    @staticmethod
    def _near(rng: np.random.Generator, centres: Vector) -> Vector:
        return unit(centres + SPREAD * rng.standard_normal(centres.shape) / DIMENSION**0.5)


def unit(rows: NDArray[np.float64] | Vector) -> Vector:
    """Rows of unit length, float32."""
    long: Vector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return long


class ByNumber:
    """An encoder whose queries are row numbers: what is measured is recall, as with a cached query, not the model."""

    fingerprint = Fingerprint("bench", "1", DIMENSION, "none", True)

    def __init__(self, queries: Vector) -> None:
        self._queries = queries

    def encode_query(self, text: str) -> Vector:
        row: Vector = self._queries[int(text.split()[-1])]
        return row

    def encode(self, texts: Sequence[str]) -> Vector:
        return np.stack([self.encode_query(text) for text in texts])

    def token_vectors(self, texts: Sequence[str], *, kind: Kind = "document") -> list[TokenVectors]:
        """Each text as one word piece."""
        return [TokenVectors(np.zeros(1, np.int64), self.encode_query(text)[None]) for text in texts]


@contextmanager
def stored(spread: Spread, settings: Settings) -> Iterator[Deployment]:
    """A deployment that holds the episodes, embedded and clustered by topic."""
    deployment = Deployment(settings)
    try:
        deployment.vectors.ensure(ByNumber.fingerprint)
        _fill(spread, deployment)
        _cluster(spread, deployment)
        yield deployment
    finally:
        deployment.close()


def recaller(deployment: Deployment, spread: Spread, **changes: object) -> Recaller:
    """Recall over the stored episodes; no gap is measured."""
    settings = deployment.settings.replace(hierarchical_gap_sample=0, **changes)
    encoder = ByNumber(spread.queries)
    return Recaller(deployment.graph, deployment.vectors, encoder, settings, deployment.hooks, deployment.metrics)


def embedded(deployment: Deployment, episodes: Sequence[Episode], rows: Vector) -> None:
    """Store new episodes of one session with their vectors (n, d), without a model."""
    graph, row_of = deployment.graph, dict(zip((e.episode_id for e in episodes), rows, strict=True))
    graph.add(episodes)
    while claims := graph.claim(len(episodes), token=HOLDER, lease_seconds=600):
        points = []
        for claim in claims:
            episode, row = claim.episode, row_of[claim.episode.episode_id]
            words = deployment.sparse.document(episode.content)
            points.append(
                Point(
                    episode_id=episode.episode_id,
                    window=0,
                    windows=1,
                    generation=claim.generation,
                    session_id=episode.session_id,
                    timestamp=episode.timestamp or START,
                    dense={CONTENT: row, CONTEXT: row},
                    sparse={BM25: words, BM25_CONTEXT: words},
                )
            )
        deployment.vectors.upsert(points)
        graph.mark_embedded(HOLDER, {claim.episode.episode_id: 1 for claim in claims})


def _fill(spread: Spread, deployment: Deployment) -> None:
    for low in range(0, len(spread.ids), WRITTEN_AT_ONCE):
        numbers = range(low, min(low + WRITTEN_AT_ONCE, len(spread.ids)))
        episodes = [
            Episode(
                f"subject{spread.topic[i]} item{i}",
                episode_id=spread.ids[i],
                session_id=SESSION,
                timestamp=START + timedelta(seconds=i),
            )
            for i in numbers
        ]
        embedded(deployment, episodes, spread.matrix[low : numbers.stop])


def _cluster(spread: Spread, deployment: Deployment) -> None:
    graph, vectors = deployment.graph, deployment.vectors
    run = graph.start_run(graph.request_run(SESSION).run_id, token=HOLDER, lease_seconds=600)
    clusters, centroids = [], []
    for topic in np.unique(spread.topic):
        rows = np.flatnonzero(spread.topic == topic)
        mean = spread.matrix[rows].mean(axis=0)
        name = f"t{topic}"
        centroids.append(Centroid(name, SESSION, run.run_id, unit(mean[None])[0], 1.0))
        clusters.append(Cluster(name, SESSION, f"subject {topic}", len(rows)))
        members = [spread.ids[i] for i in rows]
        graph.stage(run.run_id, token=HOLDER, memberships=[Membership(e, name, None, 0.1) for e in members])
        vectors.change([PointChange(e, cells=(name,)) for e in members])
    vectors.put_centroids(centroids)
    graph.publish(replace(run, status="done", clusters=tuple(clusters)), token=HOLDER)
