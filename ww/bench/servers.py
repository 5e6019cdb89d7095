"""What gRPC and connection pools gain, on the servers that ``QDRANT_URL`` and ``NEO4J_URI`` name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from uuid import uuid4

from ww.bench.corpus import Corpus
from ww.bench.figure import Bench, Figure, p95, skipped, wall
from ww.bench.filled import SESSION, filled
from ww.bench.gain import Work, gain
from ww_core.deployment import Deployment
from ww_core.stores.ports import CONTENT, GraphStore, Search, VectorStore, Where

THREADS, BURST = 8, 64
"""Asking at once, and how often in one turn."""
ROUNDS = 5
MERGED, WARM_UP = 5000, 4
"""Episodes of a batch on Neo4j, and batches before those that count."""
MERGED_TARGET, SINGLE_TARGET = 5000, 15.0
"""Episodes acknowledged per second, and milliseconds of one store."""
READ = 20
"""Episodes of one read, and results of one search."""


def qdrant(corpus: Corpus, bench: Bench) -> Iterator[Figure]:
    """In a collection of its own, which is dropped."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        yield from (skipped(name, "ms", "QDRANT_URL is not set") for name in ("qdrant_grpc", "qdrant_pool_size"))
        return
    from ww_core.stores.servers.qdrant import QdrantVectorStore

    with filled(corpus, bench, "qdrant", qdrant_url=url, namespace=_namespace()) as deployment:
        settings, grpc = deployment.settings, _searches(deployment.vectors, corpus)
        http = QdrantVectorStore(settings.replace(qdrant_grpc=False, qdrant_prefer_grpc=False))
        narrow = QdrantVectorStore(settings.replace(qdrant_pool_size=1))
        n = len(corpus.queries)
        try:
            note = f"a search of {corpus.size:,} points"
            yield gain("qdrant_grpc", _searches(http, corpus), grpc, n, peer="HTTP", note=note)
            one, many = _at_once(_searches(narrow, corpus), n), _at_once(grpc, n)
            note = f"{BURST} searches by {THREADS} threads"
            yield gain("qdrant_pool_size", one, many, ROUNDS, peer="one connection", note=note)
        finally:
            narrow.drop()
            narrow.close()
            http.close()


def neo4j(corpus: Corpus, bench: Bench) -> Iterator[Figure]:
    """In a namespace of its own, whose texts are erased."""
    uri = os.environ.get("NEO4J_URI")
    if not uri:
        yield skipped("neo4j_pool_size", "ms", "NEO4J_URI is not set")
        return
    password, n = os.environ.get("NEO4J_PASSWORD", ""), corpus.size - READ
    with filled(corpus, bench, "neo4j", neo4j_uri=uri, neo4j_password=password, namespace=_namespace()) as deployment:
        narrow = Deployment(deployment.settings.replace(neo4j_pool_size=1))
        try:
            one, many = (_at_once(_reads(each.graph, corpus), n) for each in (narrow, deployment))
            note = f"{BURST} reads by {THREADS} threads"
            yield gain("neo4j_pool_size", one, many, ROUNDS, peer="one connection", note=note)
        finally:
            narrow.close()
            deployment.graph.tombstone(session_id=SESSION)


def storing(bench: Bench) -> Iterator[Figure]:
    """Batches and single stores with the record on Neo4j, in a namespace of its own, whose texts are erased."""
    uri = os.environ.get("NEO4J_URI")
    if not uri:
        yield skipped("store_batch_neo4j", "episodes/s", "NEO4J_URI is not set", MERGED_TARGET)
        yield skipped("store_p95_neo4j", "ms", "NEO4J_URI is not set", SINGLE_TARGET, low_is_good=True)
        return
    password = os.environ.get("NEO4J_PASSWORD", "")
    deployment = Deployment(
        bench.place("stored", neo4j_uri=uri, neo4j_password=password, namespace=_namespace(), qdrant_url=":memory:")
    )
    ingest, singles = deployment.ingest, bench.scale.singles
    try:
        # a server that has just started compiles what it runs often
        rates = [
            MERGED / wall(partial(ingest.store_batch, _texts(f"batch {turn}"), session_id=SESSION))
            for turn in range(WARM_UP + ROUNDS)
        ][WARM_UP:]
        seconds = [wall(partial(ingest.store, f"single {i}", session_id=SESSION)) for i in range(2 * singles)]
        yield Figure("store_batch_neo4j", median(rates), "episodes/s", MERGED_TARGET, note=f"batches of {MERGED:,}")
        yield Figure("store_p95_neo4j", p95(seconds[singles:]), "ms", SINGLE_TARGET, low_is_good=True,
                     note="distributed: the row on Neo4j")  # fmt: skip
    finally:
        deployment.graph.tombstone(session_id=SESSION)
        deployment.close()


def _texts(mark: str) -> list[str]:
    return [f"{mark}, number {i}" for i in range(MERGED)]


def _searches(vectors: VectorStore, corpus: Corpus) -> Work:
    where = Where(sessions=(SESSION,))
    return lambda i: vectors.search([Search(CONTENT, corpus.queries[i], where, limit=READ)])


def _reads(graph: GraphStore, corpus: Corpus) -> Work:
    return lambda i: graph.get([corpus.name(i + j) for j in range(READ)])


def _at_once(work: Work, n: int) -> Work:
    """A burst of the turns below ``n``, by several threads."""

    def burst(_: int) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, (i % n for i in range(BURST))))

    return burst


def _namespace() -> str:
    return f"bench{uuid4().hex[:12]}"
