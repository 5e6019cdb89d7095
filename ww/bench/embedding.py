"""The encoder beside SentenceTransformer.encode, and the path from pending to findable beside the encoder alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ww.bench import data, locomo
from ww.bench.figure import Bench, Figure, cpu, skipped, wall
from ww.cli.demo_text import episodes
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.embedding import EmbeddingService
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.drain import Drain
from ww_core.maintenance.refresh import Refresh
from ww_core.models import Vector
from ww_core.stores.ports import CONTENT, Point

PLAIN_TARGET, BFLOAT16_TARGET = 1.7, 2.0
LEAST_COSINE = 0.999
PIPELINE_TARGET = 0.95
ROUNDS = 3
PAIRS = 5
"""Of the encoder alone and the path from pending to findable behind it: the pair with the median ratio counts. The
speed of a shared machine changes from minute to minute, and less within a pair."""
ON_A_GPU = 10_000
"""Texts that keep a GPU busy for long enough to be timed."""

MOST_SECONDS = 600.0
"""Of draining, or of refreshing, once."""
HOLDER = "bench"
"""Of every lease here."""


def prose(n: int) -> list[str]:
    """Paragraphs of Python's documentation, of the lengths that memories have, in an order without topics."""
    found = [episode.content for episode in episodes()]
    order = np.random.default_rng(5).permutation(len(found))
    return [found[order[i % len(found)]] + (f" ({i})" if i >= len(found) else "") for i in range(n)]


def encoder(bench: Bench) -> list[Figure]:
    """Texts per second of CPU time on one thread (of wall time on a GPU), at a cosine of at least 0.999.

    Beside prose, the short texts of the labelled sets; and wall time with every core.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    settings = bench.settings.replace(embedding_cache_size=0)
    threads = torch.get_num_threads()  # before a model of one thread is loaded
    on_cpu = settings.embedding_device == "cpu" or not torch.cuda.is_available()
    target = BFLOAT16_TARGET if _has_bfloat16() or not on_cpu else PLAIN_TARGET
    service = EmbeddingService(settings.replace(embedding_threads=1) if on_cpu else settings)
    choice = service.settle()
    model = SentenceTransformer(str(service.source.directory), device=service.device, local_files_only=True)
    tiny = bench.scale.name == "tiny"  # one kind of texts on one thread proves that it is measured
    kinds, absent = _kinds(bench.scale.encoded if on_cpu else max(bench.scale.encoded, ON_A_GPU), prose_alone=tiny)
    found, cosines = [], []
    try:
        if on_cpu:
            torch.set_num_threads(1)
        for kind, texts in kinds.items():
            bench.say(f"encoder: {kind or 'prose'}")
            pair = _Pair(service, model, texts)
            cosines.append(pair.alike())
            own, other = pair.rates(cpu if on_cpu else wall)
            found.append(
                Figure(
                    f"encoder_{kind}" if kind else "encoder",
                    own,
                    "texts/s of CPU" if on_cpu else "texts/s",
                    target,
                    other,
                    "SentenceTransformer.encode",
                    judged="ratio",
                    note=f"{choice.path}; one thread" if on_cpu else _device(service, settings),
                )
            )
        if on_cpu and not tiny:
            torch.set_num_threads(threads)
            everywhere = EmbeddingService(settings)
            everywhere.settle()
            own, other = _Pair(everywhere, model, kinds[""]).rates(wall)
            found.append(
                Figure(
                    *("encoder_all_cores", own, "texts/s", target, other, "SentenceTransformer.encode"),
                    judged="ratio",
                    note=f"wall time, {threads} threads: others on the machine show",
                )
            )
    finally:
        torch.set_num_threads(threads)
        service.close()
    alike = Figure(
        "encoder_cosine", min(cosines), "smallest cosine", LEAST_COSINE, note="with SentenceTransformer.encode"
    )
    return [*found, alike, *(_without(kind, why, target) for kind, why in absent.items())]


def _without(kind: str, why: str, target: float) -> Figure:
    return skipped(f"encoder_{kind}", "texts/s", why, target, judged="ratio")


class _Pair:
    """Ours and the peer, at its defaults, on the same texts."""

    def __init__(self, service: EmbeddingService, model: Any, texts: list[str]) -> None:
        self._service, self._model, self._texts = service, model, texts

    def ours(self) -> Vector:
        return np.stack([_mean(rows) for rows in self._service.embed_windows(self._texts)])

    def peer(self) -> Vector:
        rows: Vector = self._model.encode(self._texts, normalize_embeddings=True, show_progress_bar=False)
        return rows

    def alike(self) -> float:
        """The smallest cosine between the two; warms both."""
        return float((self.peer() * self.ours()).sum(axis=1).min())

    def rates(self, seconds: Callable[[Callable[[], object]], float]) -> tuple[float, float]:
        """Texts per second, ours and the peer's, turn by turn."""
        pairs = [(seconds(self.ours), seconds(self.peer)) for _ in range(ROUNDS)]
        own, other = (len(self._texts) / statistics.median(column) for column in zip(*pairs, strict=True))
        return own, other


def _kinds(n: int, *, prose_alone: bool) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Up to ``n`` texts of each kind, '' for prose; and the kinds that are not on this machine, with why."""
    sets: tuple[tuple[str, str, Callable[[], Sequence[str]]], ...] = (
        ("banking77", data.BANKING, lambda: data.banking().texts),
        ("clinc150", data.CLINC, lambda: data.clinc().texts),
        (
            "locomo",
            locomo.FILE,
            lambda: [e.content for c in locomo.load(data.folder() / locomo.FILE) for e in c.episodes],
        ),
    )
    kinds, absent = {"": prose(n)}, {}
    for kind, file, load in sets:
        if why := "at --scale quick and full only" if prose_alone else data.absent(file):
            absent[kind] = why
        else:
            texts = load()
            order = np.random.default_rng(5).permutation(len(texts))[:n]
            kinds[kind] = [texts[i] for i in order]
    return kinds, absent


def drain(bench: Bench) -> Iterator[Figure]:
    """From pending to findable, context refresh held back, beside the encoder alone and one episode at a time."""
    import torch

    settings = bench.settings.replace(embedding_cache_size=0)
    yield from _drained(bench, settings, "drain")
    if torch.cuda.is_available():
        half = settings.replace(embedding_device="cuda", embedding_fp16=True)
        yield from _drained(bench, half, "drain_gpu")
    else:
        yield skipped("drain_gpu", "episodes/s", "there is no CUDA device", PIPELINE_TARGET, judged="ratio")


def _drained(bench: Bench, settings: Settings, name: str) -> list[Figure]:
    service = EmbeddingService(settings)
    service.settle()
    on_cpu = service.device == "cpu"
    texts = prose(bench.scale.drained if on_cpu else max(bench.scale.drained, ON_A_GPU))
    n, pairs = len(texts), []
    try:
        for turn in range(1 if bench.scale.name == "tiny" else PAIRS):
            alone = n / wall(lambda: service.embed_windows(texts))
            place = settings.replace(data_dir=bench.directory / f"{name}-{turn}")
            drained, refreshing = _pipeline(place, service, texts)
            pairs.append((n / drained, alone, n / (drained + refreshing)))
        naive = _naive(
            settings.replace(data_dir=bench.directory / f"{name}-naive"), service, texts[: max(20, len(texts) // 10)]
        )
        pairs.sort(key=lambda pair: pair[0] / pair[1])
        piped, alone, refreshed = pairs[len(pairs) // 2]
        note = f"the pair with the median ratio of {len(pairs)}: " + ", ".join(f"{p / a:.2f}" for p, a, _ in pairs)
        if not on_cpu:
            note = f"{_device(service, settings)}; {note}"
    finally:
        service.close()
    return [
        Figure(
            *(name, piped, "episodes/s", PIPELINE_TARGET, alone, "the encoder alone"),
            judged="ratio",
            note=note,
        ),
        Figure(
            *(f"{name}_with_context", refreshed, "episodes/s", math.nan, piped, "the refresh held back"),
            note="from pending until its surroundings are in its context too",
        ),
        Figure(f"{name}_against_naive", piped, "episodes/s", peer=naive, peer_name="one episode at a time"),
    ]


def _pipeline(settings: Settings, service: EmbeddingService, texts: list[str]) -> tuple[float, float]:
    """Seconds from pending to findable, and those of the context refresh, which is held back until then."""
    deployment = Deployment(settings)
    graph, vectors, sparse, metrics = deployment.graph, deployment.vectors, deployment.sparse, deployment.metrics
    try:
        deployment.ingest.store_batch(texts)
        work = Drain(graph, vectors, service, settings, metrics, sparse=sparse)
        refresh = Refresh(graph, vectors, sparse, metrics, breaker=CircuitBreaker())
        work.prepare()
        drained = wall(lambda: work.run(max_seconds=MOST_SECONDS))
        return drained, wall(lambda: refresh.run(max_seconds=MOST_SECONDS))
    finally:
        deployment.close()


def _naive(settings: Settings, service: EmbeddingService, texts: list[str]) -> float:
    """Each episode stored, claimed, embedded, written and marked before the next: what a task per episode does."""
    deployment = Deployment(settings)
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


def _device(service: EmbeddingService, settings: Settings) -> str:
    return f"{service.device}, {'half' if settings.embedding_fp16 else 'full'} precision"


def _mean(rows: Vector) -> Vector:
    mean: Vector = rows.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _has_bfloat16() -> bool:
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
