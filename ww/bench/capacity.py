"""What episodes take on disk and in memory, beside what ``ww plan`` says: the constants of ww_core/capacity.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import psutil

from ww.bench import served
from ww.bench.apart import aside
from ww.bench.corpus import Corpus, drawn
from ww.bench.figure import Bench, Figure, skipped
from ww.bench.filled import SESSION, recaller
from ww.bench.kept import kept, lacking
from ww_core.capacity import Demand, Plan, plan
from ww_core.config import Settings
from ww_core.deployment import GRAPH_FILE, Deployment
from ww_core.models import Vector
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where

SIZES = (10_000, 100_000, 1_000_000)
"""Episodes that the plan is judged at."""
WITHIN = 0.3
"""Share of what is measured by which the plan may be wrong."""
UNIT = "share of the measured"
NOT_JUDGED = ("capacity_qdrant_memory",)
"""A server keeps of what it freed as much as its allocator likes: from one minute to the next it is half or twice."""
RECALLS = 1000
"""Of a process until its memory is looked at: of a million episodes 3 000 more add one part in a hundred."""


def run(bench: Bench) -> Iterator[Figure]:
    """How far the plan is off at each size: the graph and the vectors on disk, and the process that owns the vectors;
    met where each is within 30%. Of a Qdrant server too."""
    largest = drawn(bench, max(bench.scale.planned))
    for size in sorted({*bench.scale.planned, *SIZES}):
        if why := lacking(size) if size in bench.scale.planned else "at --scale full only":
            yield from (skipped(name, UNIT, why, WITHIN, low_is_good=True) for name in _names(size))
        else:
            yield from _embedded(bench, Corpus.of(size, min(RECALLS, size), largest.real, largest.base))
    corpus = Corpus.of(bench.scale.searched, bench.scale.queries, largest.real, largest.base)
    wanted, what = _planned(corpus)
    try:
        for name, found, planned in served.qdrant(corpus, bench, wanted):
            yield _figure(name, found, planned, what, target=math.nan if name in NOT_JUDGED else WITHIN)
    except served.Unseen as why:
        yield skipped("capacity_qdrant", UNIT, str(why))


def _embedded(bench: Bench, corpus: Corpus) -> Iterator[Figure]:
    """Of the embedded stores, consolidated."""
    graph_disk, vectors_disk, memory = _names(corpus.size)
    settings, _ = kept(bench, corpus)
    wanted, what = _planned(corpus)
    graph = served.blocks(settings.data_dir / GRAPH_FILE)
    small = "" if corpus.size in SIZES else f"judged from {SIZES[0]:,} on"
    yield _figure(graph_disk, graph, wanted.graph_disk, what, small)
    yield _figure(vectors_disk, served.disk(settings.data_dir) - graph, wanted.vectors_disk, what, small)
    found, mapped = aside(bench, resident, settings, corpus.asked, corpus.queries)
    what = f"{what}, after {len(corpus.asked):,} recalls, {mapped / 2**20:,.1f} MiB of it pages of files"
    yield _figure(memory, found, wanted.vectors_memory, what, small)


def _names(size: int) -> tuple[str, str, str]:
    """Of the figures: of the graph and the vectors on disk, and of memory."""
    return f"capacity_disk_graph_{size}", f"capacity_disk_vectors_{size}", f"capacity_memory_{size}"


def _planned(corpus: Corpus) -> tuple[Plan, str]:
    """What is planned for the episodes, and what they are in words."""
    looked_at = min(corpus.size, 5000)
    characters = round(sum(map(len, corpus.words(0, looked_at))) / looked_at)
    return plan(Demand(corpus.size, characters=characters)), f"{corpus.size:,} episodes of {characters} characters"


def _figure(name: str, found: int, planned: int, what: str, unjudged: str = "", *, target: float = WITHIN) -> Figure:
    off = abs(planned / found - 1)
    note = f"{what}: {found / 2**20:,.1f} MiB measured, {planned / 2**20:,.1f} planned"
    return Figure(name, off, UNIT, target, low_is_good=True, note=note, unjudged=unjudged)


def resident(settings: Settings, asked: Sequence[str], queries: Vector) -> tuple[int, int]:
    """Bytes in memory of this process when it has opened the stores and answered all that is asked, float32 (q, d);
    and how many of them are pages of files, which the system may take back."""
    deployment = Deployment(settings)
    recall = recaller(deployment, queries)
    for text in asked:
        recall.recall(RecallRequest(text, where=Where(sessions=(SESSION,)), limit=10))
    found = psutil.Process().memory_info()
    deployment.close()
    return int(found.rss), int(getattr(found, "shared", 0))
