"""Where the time of an episode and of a recall goes, by the figures that the code keeps of its own stages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ww.bench.embedding import prose
from ww.bench.figure import Bench, Figure
from ww.bench.filled import ingest, recaller
from ww.bench.spread import Spread
from ww.cli.demo import QUERIES
from ww_core.deployment import Deployment
from ww_core.embedding import EmbeddingService
from ww_core.maintenance.drain import Drain
from ww_core.observability.metrics import Metrics
from ww_core.recall.request import RecallRequest

EPISODE = ("store.graph", "embed.claim", "embed.encode", "embed.points", "embed.upsert", "embed.mark")
"""Stages of storing; each is measured over many episodes at a time."""
RECALL = ("recall.embed", "recall.search", "recall.fusion", "recall.rerank")
"""Stages of a recall."""
A_DAY = 86_400.0
ROUNDS = 5
"""Of which each stage's quickest counts: what else the machine does only adds."""


def run(bench: Bench) -> Iterator[Figure]:
    """Milliseconds an episode (mean) and a recall (median) of each stage, with its share of all of them."""
    embedding = EmbeddingService(bench.settings)
    embedding.settle()
    each, asked = max(1, bench.scale.drained // ROUNDS), max(1, bench.scale.queries // ROUNDS)
    texts = prose(each * ROUNDS)
    deployment = Deployment(bench.place("stages", hierarchical_gap_sample=0))
    try:
        stored = [_stored(deployment, embedding, texts[low : low + each]) for low in range(0, len(texts), each)]
        answered = [_recalled(deployment, embedding, _queries(asked, turn)) for turn in range(ROUNDS)]
    finally:
        deployment.close()
        embedding.close()
    best = f"the quickest of {ROUNDS} rounds, each the"
    yield from _figures(_least(stored), "ms an episode", f"{best} mean of a batch of {each:,} paragraphs")
    yield from _figures(_least(answered), "ms a recall", f"{best} median of {asked:,} new queries to {len(texts):,}")


def _queries(n: int, turn: int) -> list[str]:
    return [f"{QUERIES[i % len(QUERIES)]} ({turn}, {i})" for i in range(n)]


def _least(rounds: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    return {stage: min(one[stage] for one in rounds) for stage in rounds[0]}


def _stored(deployment: Deployment, embedding: EmbeddingService, texts: list[str]) -> Mapping[str, float]:
    """Milliseconds an episode of each stage, from the call to where it can be found."""
    metrics = Metrics(window_seconds=A_DAY)
    ingest(deployment, metrics).store_batch(texts)
    drain = Drain(
        deployment.graph, deployment.vectors, embedding, deployment.settings, metrics, sparse=deployment.sparse
    )
    drain.prepare()
    drain.run(max_seconds=A_DAY)
    return {stage: 1000 * metrics.sketch(stage).total / len(texts) for stage in EPISODE}


def _recalled(deployment: Deployment, embedding: EmbeddingService, asked: list[str]) -> Mapping[str, float]:
    """Milliseconds of each stage, the median of all recalls but the first, which wakes everything."""
    warm, metrics = Metrics(window_seconds=A_DAY), Metrics(window_seconds=A_DAY)
    queries = Spread(1).matrix  # not asked: the encoder reads the query
    first, recall = (recaller(deployment, queries, embedding, None, None, each) for each in (warm, metrics))
    first.recall(RecallRequest("what wakes the model"))
    for query in asked:
        recall.recall(RecallRequest(query))
    return {stage: 1000 * metrics.sketch(stage).quantile(0.5) for stage in RECALL}


def _figures(found: Mapping[str, float], unit: str, note: str) -> Iterator[Figure]:
    whole = sum(found.values())
    for stage, spent in found.items():
        yield Figure(stage, spent, unit, low_is_good=True, note=f"{spent / whole:.1%}; {note}")
