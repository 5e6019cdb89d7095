"""What gRPC and connection pools gain, on the servers that ``QDRANT_URL`` and ``NEO4J_URI`` name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import TYPE_CHECKING
from uuid import uuid4

from ww.bench.corpus import Corpus
from ww.bench.figure import Bench, Figure, p95, skipped, wall
from ww.bench.filled import SESSION, filled
from ww.bench.gain import Work, gain
from ww_core.deployment import Deployment
from ww_core.ids import new_ids
from ww_core.models import Episode
from ww_core.stores.ports import CONTENT, GraphStore, Search, VectorStore, Where

if TYPE_CHECKING:
    from ww.bench.merging import BareMerge

THREADS, BURST = 8, 64
"""Asking at once, and how often in one turn."""
CROWD, RUSH = 100, 400
"""The same where many ask at once."""
NARROW, WIDE = 50, 100
"""Connections to Neo4j: by default, and what is advised for many threads."""
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
        names = ("neo4j_pool_size", "neo4j_pool_size_100")
        yield from (skipped(name, "ms", "NEO4J_URI is not set", low_is_good=True) for name in names)
        return
    password, n = os.environ.get("NEO4J_PASSWORD", ""), corpus.size - READ
    there = {"neo4j_uri": uri, "neo4j_password": password, "neo4j_pool_size": NARROW, "namespace": _namespace()}
    with filled(corpus, bench, "neo4j", **there) as deployment:
        narrow, wide = (Deployment(deployment.settings.replace(neo4j_pool_size=size)) for size in (1, WIDE))
        try:
            one, many = (_at_once(_reads(each.graph, corpus), n) for each in (narrow, deployment))
            note = f"{BURST} reads by {THREADS} threads"
            yield gain("neo4j_pool_size", one, many, ROUNDS, peer="one connection", note=note)
            few, more = (_at_once(_reads(each.graph, corpus), n, CROWD, RUSH) for each in (deployment, wide))
            note = f"{RUSH} reads by {CROWD} threads, {WIDE} connections"
            yield gain("neo4j_pool_size_100", few, more, ROUNDS, peer=f"{NARROW} connections", note=note)
        finally:
            wide.close()
            narrow.close()
            deployment.graph.tombstone(session_id=SESSION)


def storing(bench: Bench) -> Iterator[Figure]:
    """Batches and single stores with the record on Neo4j, in a namespace of its own, whose texts are erased."""
    uri = os.environ.get("NEO4J_URI")
    if not uri:
        yield skipped("store_batch_neo4j", "episodes/s", "NEO4J_URI is not set", MERGED_TARGET)
        yield skipped("store_p95_neo4j", "ms", "NEO4J_URI is not set", SINGLE_TARGET, low_is_good=True)
        return
    from ww.bench.merging import BareMerge

    password = os.environ.get("NEO4J_PASSWORD", "")
    deployment = Deployment(
        bench.place("stored", neo4j_uri=uri, neo4j_password=password, namespace=_namespace(), qdrant_url=":memory:")
    )
    try:
        with BareMerge(uri, password) as bare:
            yield _batches(deployment, bare, MERGED if bench.scale.name != "tiny" else bench.scale.stored)
            yield _singles(deployment, bare, bench.scale.singles)
    finally:
        deployment.graph.tombstone(session_id=SESSION)
        deployment.close()


def _batches(deployment: Deployment, bare: BareMerge, n: int) -> Figure:
    ours, theirs = [], []
    for turn in range(WARM_UP + ROUNDS):  # turn by turn, so that what else the machine does slows both
        contents = [f"batch {turn}, number {i}" for i in range(n)]
        ours.append(n / wall(partial(deployment.ingest.store_batch, contents, session_id=SESSION)))
        theirs.append(n / wall(bare.write, _episodes(contents)))
    # a server that has just started compiles what it runs often
    rate, peer = median(ours[WARM_UP:]), median(theirs[WARM_UP:])
    small = "" if n == MERGED else f"judged at batches of {MERGED:,}"
    return Figure("store_batch_neo4j", rate, "episodes/s", MERGED_TARGET, peer, "a bare UNWIND + MERGE",
                  note=f"batches of {n:,}", unjudged=small)  # fmt: skip


def _singles(deployment: Deployment, bare: BareMerge, n: int) -> Figure:
    ours, theirs = [], []
    for content in (f"single {i}" for i in range(2 * n)):
        ours.append(wall(partial(deployment.ingest.store, content, session_id=SESSION)))
        theirs.append(wall(bare.write, _episodes([content])))
    peer, name = p95(theirs[n:]), "a bare MERGE of one row"
    note = "distributed: acknowledged when the row is on Neo4j"
    return Figure("store_p95_neo4j", p95(ours[n:]), "ms", SINGLE_TARGET, peer, name, low_is_good=True, note=note)


def _episodes(contents: Sequence[str]) -> list[Episode]:
    now = datetime.now(UTC)
    ids = new_ids(len(contents))
    return [Episode(text, ids[i], SESSION, now, position=i) for i, text in enumerate(contents)]


def _searches(vectors: VectorStore, corpus: Corpus) -> Work:
    where = Where(sessions=(SESSION,))
    return lambda i: vectors.search([Search(CONTENT, corpus.queries[i], where, limit=READ)])


def _reads(graph: GraphStore, corpus: Corpus) -> Work:
    return lambda i: graph.get([corpus.name(i + j) for j in range(READ)])


def _at_once(work: Work, n: int, threads: int = THREADS, times: int = BURST) -> Work:
    """A burst of the turns below ``n``, by several threads."""

    def burst(_: int) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, (i % n for i in range(times))))

    return burst


def _namespace() -> str:
    return f"bench{uuid4().hex[:12]}"
