"""The encoder beside SentenceTransformer.encode, and the path from pending to findable beside the encoder alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np

from ww.bench.figure import Bench, Figure, cpu, wall
from ww.cli.demo_text import episodes
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.embedding import EmbeddingService
from ww_core.maintenance.drain import Drain
from ww_core.models import Vector
from ww_core.stores.ports import CONTENT, Point

PLAIN_TARGET, BFLOAT16_TARGET = 1.7, 2.0
LEAST_COSINE = 0.999
PIPELINE_TARGET = 0.95
ROUNDS = 3

HOLDER = "bench"
"""Of every lease here."""


def prose(n: int) -> list[str]:
    """Paragraphs of Python's documentation, of the lengths that memories have, in an order without topics."""
    found = [episode.content for episode in episodes()]
    order = np.random.default_rng(5).permutation(len(found))
    return [found[order[i % len(found)]] + (f" ({i})" if i >= len(found) else "") for i in range(n)]


def encoder(bench: Bench) -> list[Figure]:
    """Texts per second of CPU time on one thread (of wall time on a GPU), at a cosine of at least 0.999."""
    import torch
    from sentence_transformers import SentenceTransformer

    settings = bench.settings.replace(embedding_cache_size=0)
    on_cpu = settings.embedding_device == "cpu" or not torch.cuda.is_available()
    if on_cpu:
        settings = settings.replace(embedding_threads=1)
    service = EmbeddingService(settings)
    choice = service.settle()
    threads = torch.get_num_threads()
    model = SentenceTransformer(str(service.source.directory), device=service.device, local_files_only=True)
    texts = prose(bench.scale.encoded)

    def peer() -> Vector:
        rows: Vector = model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        return rows

    def ours() -> Vector:
        return np.stack([_mean(rows) for rows in service.embed_windows(texts)])

    try:
        if on_cpu:
            torch.set_num_threads(1)
        alike = float((peer() * ours()).sum(axis=1).min())
        seconds: Callable[[Callable[[], object]], float] = cpu if on_cpu else wall
        pairs = [(seconds(ours), seconds(peer)) for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
        service.close()
    own, other = (len(texts) / statistics.median(column) for column in zip(*pairs, strict=True))
    target = BFLOAT16_TARGET if _has_bfloat16() or not on_cpu else PLAIN_TARGET
    unit = "texts/s of CPU" if on_cpu else "texts/s"
    return [
        Figure(
            *("encoder", own, unit, target, other, "SentenceTransformer.encode"),
            judged="ratio",
            note=f"{choice}; one thread" if on_cpu else str(choice),
        ),
        Figure("encoder_cosine", alike, "smallest cosine", LEAST_COSINE, note="with SentenceTransformer.encode"),
    ]


def drain(bench: Bench) -> list[Figure]:
    """From pending to findable, context refresh held back, beside the encoder alone and one episode at a time."""
    texts = prose(bench.scale.drained)
    settings = bench.settings.replace(embedding_cache_size=0)
    service = EmbeddingService(settings)
    service.settle()
    alone, piped = [], []
    try:
        for turn in range(ROUNDS):
            alone.append(len(texts) / wall(lambda: service.embed_windows(texts)))
            piped.append(_pipeline(bench, settings, service, texts, turn))
        naive = _naive(bench, settings, service, texts[: max(20, len(texts) // 10)])
    finally:
        service.close()
    return [
        Figure("drain", max(piped), "episodes/s", PIPELINE_TARGET, max(alone), "the encoder alone", judged="ratio"),
        Figure("drain_against_naive", max(piped), "episodes/s", peer=naive, peer_name="one episode at a time"),
    ]


def _pipeline(bench: Bench, settings: Settings, service: EmbeddingService, texts: list[str], turn: int) -> float:
    deployment = Deployment(settings.replace(data_dir=bench.directory / f"drain-{turn}"))
    try:
        deployment.ingest.store_batch(texts)
        work = Drain(
            deployment.graph, deployment.vectors, service, settings, deployment.metrics, sparse=deployment.sparse
        )
        work.prepare()
        return len(texts) / wall(lambda: work.run(max_seconds=600))
    finally:
        deployment.close()


def _naive(bench: Bench, settings: Settings, service: EmbeddingService, texts: list[str]) -> float:
    """Each episode stored, claimed, embedded, written and marked before the next: what a task per episode does."""
    deployment = Deployment(settings.replace(data_dir=bench.directory / "naive"))
    graph, vectors = deployment.graph, deployment.vectors
    vectors.ensure(service.fingerprint)

    def each() -> None:
        for text in texts:
            deployment.ingest.store(text)
            (claim,) = graph.claim(1, token=HOLDER, lease_seconds=60)
            episode = claim.episode
            (rows,) = service.embed_windows([episode.content])
            vectors.upsert(
                [
                    Point(
                        episode_id=episode.episode_id,
                        window=i,
                        windows=len(rows),
                        generation=claim.generation,
                        session_id=episode.session_id,
                        timestamp=episode.timestamp or deployment.clock(),
                        dense={CONTENT: row},
                    )
                    for i, row in enumerate(rows)
                ]
            )
            graph.mark_embedded(HOLDER, {episode.episode_id: len(rows)})

    try:
        return len(texts) / wall(each)
    finally:
        deployment.close()


def _mean(rows: Vector) -> Vector:
    mean: Vector = rows.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _has_bfloat16() -> bool:
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
