"""Real embedded stores filled for recall, with a small encoder whose vectors a person can reason about."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from ww_core.buffers import CA1Buffer
from ww_core.config import Settings
from ww_core.embedding.sparse import SparseEncoder
from ww_core.errors import ModelUnavailable
from ww_core.hooks import Hooks
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.refresh import Refresh
from ww_core.models import Cluster, Episode, Recall, Vector
from ww_core.observability.metrics import Metrics
from ww_core.recall.service import Recaller
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.embedded.vectors import EdgeVectorStore
from ww_core.stores.ports import (
    BM25,
    CONTENT,
    Centroid,
    Fingerprint,
    Membership,
    Point,
    PointChange,
    VectorStore,
)

DIMENSION = 64
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
FACTS = [
    "the disk of the server is full",
    "green tea tastes best in the morning",
    "the train to Berlin leaves at nine",
    "a kitten sleeps under the table",
    "the invoice was paid on Monday",
    "rain is expected over the mountains",
    "the password expires in a week",
    "a violin needs new strings",
]


class WordTokens:
    """The words of a text with one vector each."""

    def __init__(self, words: list[str], vector: Callable[[str], Vector]) -> None:
        self.ids = np.array([int.from_bytes(hashlib.sha256(w.encode()).digest()[:6]) for w in words], np.int64)
        self.vectors = np.stack([vector(word) for word in words])


class WordEncoder:
    """Texts as unit sums of one random direction a word: texts are similar as far as they share words."""

    fingerprint = Fingerprint("words", "1", DIMENSION, "sum", True)

    def __init__(self) -> None:
        self.queries: list[str] = []
        self.encoded = 0
        self.reachable = True

    def encode_query(self, text: str) -> Vector:
        if not self.reachable:
            raise ModelUnavailable("no worker answered in time")
        self.queries.append(text)
        return self._one(text)

    def encode(self, texts: Sequence[str]) -> Vector:
        if not self.reachable:
            raise ModelUnavailable("no worker answered in time")
        self.encoded += len(texts)
        return np.stack([self._one(text) for text in texts])

    def word_pieces(self, texts: Sequence[str]) -> list[list[int]]:
        return [WordTokens(text.lower().split(), self._one).ids.tolist() for text in texts]

    def encode_query_with_tokens(self, text: str) -> tuple[Vector, WordTokens]:
        return self.encode_query(text), self._tokens(text)

    def token_vectors(self, texts: Sequence[str], *, kind: str) -> list[WordTokens]:
        """Words as word pieces, between two that stand for nothing."""
        self.encoded += len(texts)
        return [self._tokens(text) for text in texts]

    def _tokens(self, text: str) -> WordTokens:
        return WordTokens(["<", *text.lower().replace("?", "").split(), ">"], self._one)

    def _one(self, text: str) -> Vector:
        total = np.full(DIMENSION, 1e-3, np.float32)
        for word in text.lower().replace("?", " ").replace(".", " ").replace(":", " ").split():
            seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
            total += np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
        return total / np.float32(np.linalg.norm(total))


@dataclass
class Shelf:
    """One deployment's stores, filled by the tests."""

    graph: SqliteGraphStore
    vectors: VectorStore
    encoder: WordEncoder = field(default_factory=WordEncoder)
    sparse: SparseEncoder = field(default_factory=SparseEncoder)
    ca1: CA1Buffer = field(default_factory=lambda: CA1Buffer(50))
    metrics: Metrics = field(default_factory=Metrics)
    hooks: Hooks = field(init=False)
    now: datetime = NOON

    def __post_init__(self) -> None:
        self.hooks = Hooks(metrics=self.metrics)

    def recaller(self, *, chance: Callable[[], float] = lambda: 1.0, **settings: Any) -> Recaller:
        """A recaller on these stores; ``chance`` 1 measures no gap."""
        return Recaller(
            self.graph,
            self.vectors,
            self.encoder,
            Settings(**settings),
            self.hooks,
            self.metrics,
            self.ca1,
            sparse=self.sparse,
            clock=lambda: self.now,
            chance=chance,
        )

    def store(self, episodes: Sequence[Episode]) -> None:
        """Acknowledge without embedding, as a process that just stored them."""
        self.graph.add(episodes)
        self.ca1.add(episodes)

    def embed(self) -> None:
        """Embed everything pending and refresh every context."""
        while claims := self.graph.claim(500, token="t", lease_seconds=60):
            matrix = self.encoder.encode([claim.episode.content for claim in claims])
            self.vectors.upsert(
                [
                    Point(
                        episode_id=c.episode.episode_id,
                        window=0,
                        windows=1,
                        generation=c.generation,
                        session_id=c.episode.session_id,
                        timestamp=c.episode.timestamp or NOON,
                        dense={CONTENT: vector},
                        sparse={BM25: self.sparse.document(c.episode.content)},
                        outcome=c.episode.outcome,
                        context={k: v for k, v in c.episode.context.items() if isinstance(v, str)},
                    )
                    for c, vector in zip(claims, matrix, strict=True)
                ]
            )
            self.graph.mark_embedded("t", {claim.episode.episode_id: 1 for claim in claims})
        refresh = Refresh(self.graph, self.vectors, self.sparse, Metrics(), breaker=CircuitBreaker())
        report = refresh.run(max_seconds=60)
        assert not report.more
        assert not report.outage

    def cluster(self, session_id: str, groups: dict[str, list[str]]) -> str:
        """Publish a run with these clusters (id -> episode ids); the run's id."""
        run = self.graph.start_run(self.graph.request_run(session_id).run_id, token="run", lease_seconds=60)
        clusters, centroids = [], []
        for cluster_id, ids in groups.items():
            matrix = np.stack([stored.vector for stored in self.vectors.vectors(ids)])
            mean = matrix.mean(axis=0)
            centroid = (mean / np.linalg.norm(mean)).astype(np.float32)
            centroids.append(Centroid(cluster_id, session_id, run.attempt, centroid, 1.0))
            clusters.append(Cluster(cluster_id, session_id, f"about {cluster_id}", len(ids)))
            self.graph.stage(run.run_id, token="run", memberships=[Membership(i, cluster_id, None, 0.1) for i in ids])
            self.vectors.change([PointChange(i, cells=(cluster_id,)) for i in ids])
        self.vectors.put_centroids(centroids)
        done = run.__class__(**{**_fields(run), "status": "done", "clusters": tuple(clusters)})
        assert self.graph.publish(done, token="run")
        return run.run_id


def _fields(run: Any) -> dict[str, Any]:
    return {name: getattr(run, name) for name in run.__dataclass_fields__}


def open_shelf(directory: Path) -> Shelf:
    """Fresh embedded stores in ``directory``."""
    shelf = Shelf(SqliteGraphStore(directory / "graph.sqlite3"), EdgeVectorStore.open(directory, namespace="test"))
    shelf.vectors.ensure(shelf.encoder.fingerprint)
    return shelf


def turn(i: int, content: str, *, session: str = "s", seconds: float = 30, **fields: Any) -> Episode:
    """The ``i``-th episode of a session."""
    fields.setdefault("timestamp", NOON + timedelta(seconds=seconds * i))
    return Episode(content, episode_id=f"{session}-{i}", session_id=session, **fields)


@contextmanager
def opened(directory: Path) -> Iterator[Shelf]:
    shelf = open_shelf(directory)
    try:
        yield shelf
    finally:
        shelf.vectors.close()
        shelf.graph.close()


def with_facts(shelf: Shelf) -> Shelf:
    shelf.store([turn(i, fact) for i, fact in enumerate(FACTS)])
    shelf.embed()
    return shelf


def ids(recall: Recall) -> list[str]:
    return [result.episode_id for result in recall]
