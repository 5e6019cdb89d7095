"""What each optimisation of the performance page gains: the same work before and after it, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count

import numpy as np

from ww.bench import servers
from ww.bench.corpus import Corpus, drawn, fingerprint
from ww.bench.embedding import ON_A_GPU, prose
from ww.bench.figure import DENSE_ONLY, Bench, Figure, skipped
from ww.bench.filled import SESSION, consolidate, filled, recaller
from ww.bench.gain import Work, gain
from ww.bench.searching import SELECTED, K, agreement, ask
from ww.bench.spread import DIMENSION, Spread
from ww.bench.store import texts
from ww_core.consolidation.service import Consolidator
from ww_core.deployment import Deployment
from ww_core.embedding import EmbeddingService
from ww_core.hooks import Hooks, Point
from ww_core.ingest.core import Ingest
from ww_core.stores.ports import CONTENT
from ww_core.stores.ports import Point as VectorPoint

ROUNDS = 3
"""Turns of what takes long; a tiny scale has one, which proves that it is measured."""
HOOKS = 5
"""Registered at each point; they do nothing."""
HOOKED = f"{2 * HOOKS} hooks that do nothing"
FEW = 20
"""Candidates, in the place of 64."""
CACHED = (1000, 10_000, 5000)
"""Entries of a cache before and after, and how many different queries come again and again."""
ASKED = 10
"""Queries of one turn."""
ON_SERVER = 2000
"""Episodes on a server, at most."""
MOST_SELECTED = 8
"""Clusters searched, in the place of three: what the preset very-large sets."""
LARGE = 5000
"""Episodes clustered at once, or assigned at a time: what the preset large sets."""
ASSIGNING = {"consolidation_max_samples": 500}
"""So that most episodes are assigned, not clustered."""

RECALL: Sequence[tuple[str, str, Mapping[str, object]]] = (
    ("recall_components", "all parts", DENSE_ONLY),
    ("rerank_candidates", "64", {"rerank_candidates": FEW}),
    ("recall_candidates", "64", {"recall_candidates": FEW}),
)
"""Figure, what stands before it, and the settings after."""
CONSOLIDATION: Sequence[tuple[str, str, Mapping[str, object], Mapping[str, object]]] = (
    ("consolidation_max_samples", f"{LARGE} clustered", {"consolidation_max_samples": LARGE}, {}),
    ("consolidation_batch_size", "500 a batch", ASSIGNING, {**ASSIGNING, "consolidation_batch_size": LARGE}),
)
"""Figure, what stands before it, settings before and after."""
CUDA: Mapping[str, object] = {"embedding_device": "cuda"}
EMBEDDING: Sequence[tuple[str, str, Mapping[str, object], Mapping[str, object]]] = (
    ("embedding_batch_size", "1 a pass", {"embedding_batch_size": 1}, {"embedding_batch_size": 8}),
    ("embedding_batch_size_small", "32 a pass", {"embedding_batch_size": 32}, {"embedding_batch_size": 8}),
    ("embedding_threads", "one thread", {"embedding_threads": 1}, {}),
    ("embedding_device", "the CPU", {}, CUDA),
    ("embedding_fp16", "float32", CUDA, {**CUDA, "embedding_fp16": True}),
    ("embedding_batch_size_64", "8 a pass", {**CUDA, "embedding_batch_size": 8}, CUDA),
    ("embedding_batch_size_512", "64 a pass", CUDA, {**CUDA, "embedding_batch_size": 512}),
)
"""Figure, what stands before it, settings before and after; the device is the CPU unless they say otherwise."""


def run(bench: Bench) -> Iterator[Figure]:
    """Storing, consolidating, recall, embedding, and servers where there are some."""
    yield from _storing(bench)
    corpus = drawn(bench, bench.scale.searched)
    with filled(corpus, bench, "guide") as deployment:
        yield from _consolidating(corpus, deployment, _rounds(bench))
        consolidate(deployment)
        yield from _recalling(corpus, deployment, bench)
    yield from _embedding(bench)
    small = Corpus.of(min(corpus.size, ON_SERVER), len(corpus.queries), corpus.real, corpus.base)
    yield from servers.qdrant(small, bench)
    yield from servers.neo4j(small, bench)


def _storing(bench: Bench) -> Iterator[Figure]:
    contents = texts(max(1, bench.scale.singles // ROUNDS))
    deployment = Deployment(bench.place("storing"))
    plain, hooked = (_ingest(deployment, hooks) for hooks in (Hooks(), _hooks("before_store", "after_store")))

    def loop(_: int) -> None:
        for text in contents:
            plain.store(text)

    def batch(_: int) -> None:
        plain.store_batch(contents)

    try:
        note = f"{len(contents)} episodes"
        yield gain("store_batch", loop, batch, _rounds(bench), peer="store in a loop", note=note)
        before, after = (_stores(ingest) for ingest in (hooked, plain))
        yield gain("store_without_hooks", before, after, bench.scale.singles, peer=HOOKED, note="a single store")
        yield _upserting(deployment, len(contents), _rounds(bench))
    finally:
        deployment.close()


def _upserting(deployment: Deployment, n: int, rounds: int) -> Figure:
    """Points of new episodes every time: one that is there already would not be written again."""
    rows, numbers = Spread(n).matrix, count()
    deployment.vectors.ensure(fingerprint(DIMENSION))

    def made() -> list[VectorPoint]:
        turn, now = next(numbers), deployment.clock()
        return [VectorPoint(f"{turn}-{i}", 0, 1, 1, SESSION, now, {CONTENT: row}) for i, row in enumerate(rows)]

    def loop(_: int) -> None:
        for point in made():
            deployment.vectors.upsert([point])

    def batch(_: int) -> None:
        deployment.vectors.upsert(made())

    return gain("vector_upsert", loop, batch, rounds, peer="one by one", note=f"{n} points")


def _caching(bench: Bench) -> Figure:
    """Queries in random order, of more kinds than a small cache holds."""
    few, many, different = (n // (50 if bench.scale.name == "tiny" else 1) for n in CACHED)
    asked = [f"why did deploy {i} of service {i % 97} fail" for i in range(different)]
    bench.say(f"  embedding {different:,} queries")
    rows = EmbeddingService(bench.settings.replace(embedding_cache_size=0)).encode(asked)
    order = np.random.default_rng(5).integers(0, different, (bench.scale.queries + 1, ASKED))

    def asking(size: int) -> Work:
        service = EmbeddingService(bench.settings.replace(embedding_cache_size=size))
        for text, row in zip(asked, rows, strict=True):
            service.seed(text, row)
        return lambda turn: [service.encode(asked[i]) for i in order[turn]]

    note = f"{ASKED} of {different:,} different queries, {many:,} kept"
    return gain("embedding_cache_size", asking(few), asking(many), bench.scale.queries, peer=f"{few:,} kept", note=note)


def _consolidating(corpus: Corpus, deployment: Deployment, rounds: int) -> Iterator[Figure]:
    """Dry runs over everything."""
    for name, peer, *ways in CONSOLIDATION:
        before, after = (_previews(deployment, way) for way in ways)
        yield gain(name, before, after, rounds, peer=peer, note=f"a dry run over {corpus.size:,} episodes")


def _recalling(corpus: Corpus, deployment: Deployment, bench: Bench) -> Iterator[Figure]:
    n, queries = len(corpus.queries), corpus.queries
    services = [EmbeddingService(bench.settings.replace(embedding_cache_size=size)) for size in (0, 1000)]
    anew, cached = (_again(ask(recaller(deployment, queries, one), corpus, "flat")) for one in services)
    yield gain("embedding_cache", anew, cached, n, peer="no cache", note="a recall, the query asked again")
    yield _caching(bench)
    hooks = _hooks("before_recall", "after_recall")
    plain, hooked = (ask(recaller(deployment, queries, None, h), corpus, "flat") for h in (Hooks(), hooks))
    yield gain("recall_without_hooks", hooked, plain, n, peer=HOOKED, note="a recall")
    for name, peer, changes in RECALL:
        yield _changed(name, plain, ask(recaller(deployment, queries, **changes), corpus, "flat"), corpus, peer)
    few, many = (
        ask(recaller(deployment, queries, cluster_selection_k=k), corpus, "hierarchical")
        for k in (SELECTED, MOST_SELECTED)
    )
    yield _changed("hierarchical_search", plain, few, corpus, "flat")
    yield _changed("cluster_selection_k", many, few, corpus, f"{MOST_SELECTED} clusters")


def _changed(
    name: str, before: Callable[[int], list[str]], after: Callable[[int], list[str]], corpus: Corpus, peer: str
) -> Figure:
    """Of two recalls that may answer differently, with how much of the answer stays."""
    numbers = range(len(corpus.queries))
    share = agreement([after(i) for i in numbers], [before(i) for i in numbers])
    note = f"{corpus.size:,} episodes, {share:.0%} of the best {K} stay"
    return gain(name, before, after, len(numbers), peer=peer, note=note)


def _embedding(bench: Bench) -> Iterator[Figure]:
    import torch

    few = prose(max(1, bench.scale.encoded // 2))
    base = bench.settings.replace(embedding_cache_size=0, embedding_device="cpu", embedding_fp16=False)
    for name, peer, *ways in EMBEDDING:
        if not torch.cuda.is_available() and any("embedding_device" in way for way in ways):
            yield skipped(name, "ms", "there is no CUDA device")
            continue
        contents = prose(ON_A_GPU) if all("embedding_device" in way for way in ways) else few
        before, after = (_embeds(EmbeddingService(base.replace(**way)), contents) for way in ways)
        yield gain(name, before, after, _rounds(bench), peer=peer, note=f"{len(contents)} paragraphs")


def _rounds(bench: Bench) -> int:
    return 1 if bench.scale.name == "tiny" else ROUNDS


# -- ways to work


def _ingest(deployment: Deployment, hooks: Hooks) -> Ingest:
    return Ingest(
        deployment.graph,
        hooks=hooks,
        metrics=deployment.metrics,
        buffers=deployment.buffers,
        ring=deployment.doorbell.ring,
        clock=deployment.clock,
    )


def _hooks(*points: Point) -> Hooks:
    registry = Hooks()
    for point in points:
        for _ in range(HOOKS):
            registry.add(point, lambda *_: None)
    return registry


def _stores(ingest: Ingest) -> Work:
    return lambda i: ingest.store(f"note {i}")


def _again(work: Work) -> Work:
    return lambda _: work(0)


def _previews(deployment: Deployment, changes: Mapping[str, object]) -> Work:
    consolidator = Consolidator(
        deployment.graph,
        deployment.vectors,
        deployment.settings.replace(**changes),
        deployment.hooks,
        deployment.metrics,
    )
    return lambda _: consolidator.preview(SESSION)


def _embeds(service: EmbeddingService, contents: Sequence[str]) -> Work:
    return lambda _: service.embed_windows(contents)
