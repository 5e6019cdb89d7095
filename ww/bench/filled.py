"""Embedded stores filled in bulk with episodes that are already embedded, and clustered by consolidation itself."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from ww.bench.corpus import ByNumber, Corpus, fingerprint
from ww.bench.figure import Bench
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.hooks import Hooks
from ww_core.ingest.core import Ingest
from ww_core.maintenance.points import Sparse, points, words
from ww_core.models import Episode, Run, Vector
from ww_core.observability.metrics import Metrics
from ww_core.recall.service import RecallEncoder, Recaller
from ww_core.stores.ports import GraphStore, VectorStore

START = datetime(2024, 5, 1, 12, tzinfo=UTC)
SESSION = "bench"
LEASE_SECONDS = 600.0


@contextmanager
def filled(corpus: Corpus, bench: Bench, name: str, **changes: object) -> Iterator[Deployment]:
    """A deployment that holds the episodes of ``corpus``, embedded, not yet clustered."""
    deployment = Deployment(bench.place(name, **changes))
    try:
        deployment.vectors.ensure(fingerprint(corpus.queries.shape[1]))
        started = time.perf_counter()
        fill(corpus, deployment)
        bench.say(f"  {corpus.size:,} episodes stored and written in {time.perf_counter() - started:.0f} s")
        yield deployment
    finally:
        deployment.close()


def fill(corpus: Corpus, deployment: Deployment, low: int = 0, high: int | None = None) -> None:
    """Write the episodes from ``low`` to before ``high``, by default all: the record first, as always, then the
    points."""
    for first, end in corpus.parts(low, high):
        episodes = [
            Episode(
                content=text,
                episode_id=corpus.name(i),
                session_id=SESSION,
                timestamp=START + timedelta(seconds=30 * i),
            )
            for i, text in enumerate(corpus.words(first, end), first)
        ]
        embedded(deployment.graph, deployment.vectors, deployment.sparse, episodes, corpus.rows(first, end))


def embedded(
    graph: GraphStore, vectors: VectorStore, sparse: Sparse | None, episodes: Sequence[Episode], rows: Vector
) -> None:
    """Store new episodes with their vectors (n, d), without a model, where nothing else is pending."""
    row_of = dict(zip((e.episode_id for e in episodes), rows, strict=True))
    graph.add(episodes)
    token = uuid4().hex
    while claims := graph.claim(len(episodes), token=token, lease_seconds=LEASE_SECONDS):
        found = words([claim.episode.content for claim in claims], sparse)
        each = zip(claims, found, strict=True)
        made = [points(claim, row_of[claim.episode.episode_id][None], of_one) for claim, of_one in each]
        vectors.upsert([point for of_one in made for point in of_one])
        graph.mark_embedded(token, {claim.episode.episode_id: 1 for claim in claims})


def consolidate(deployment: Deployment) -> Run:
    """What ``ww consolidate`` does."""
    requested = deployment.graph.request_run(SESSION)
    return deployment.consolidator.run(requested.run_id, token=uuid4().hex)


def ingest(deployment: Deployment, metrics: Metrics) -> Ingest:
    """What stores in the deployment and rings for nobody, with figures of its own."""
    return Ingest(
        deployment.graph,
        hooks=deployment.hooks,
        metrics=metrics,
        buffers=deployment.buffers,
        ring=lambda: None,
        clock=deployment.clock,
    )


def recaller(
    deployment: Deployment,
    queries: Vector,
    encoder: RecallEncoder | None = None,
    hooks: Hooks | None = None,
    vectors: VectorStore | None = None,
    metrics: Metrics | None = None,
    /,
    **changes: object,
) -> Recaller:
    """Recall over the stored episodes with these queries (q, d), or with ``encoder``; no gap is measured.

    ``changes`` are settings; ``hooks``, ``vectors`` and ``metrics`` are by default the deployment's.
    """
    settings: Settings = deployment.settings.replace(hierarchical_gap_sample=0, **changes)
    return Recaller(
        deployment.graph,
        vectors or deployment.vectors,
        encoder or ByNumber(queries),
        settings,
        hooks or deployment.hooks,
        metrics or deployment.metrics,
    )
