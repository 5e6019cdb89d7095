"""What episodes take on disk and in memory, beside what ``ww plan`` says: the constants of ww_core/capacity.yaml."""

from __future__ import annotations

import math
from collections.abc import Iterator

import psutil

from ww.bench import served
from ww.bench.apart import alone
from ww.bench.corpus import drawn
from ww.bench.figure import Bench, Figure, skipped
from ww.bench.filled import SESSION, consolidate, filled, recaller
from ww.bench.spread import Spread
from ww_core.capacity import Demand, plan
from ww_core.config import Settings
from ww_core.deployment import GRAPH_FILE, Deployment
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where

WITHIN = 0.3
"""Share by which the plan may be wrong."""
NOT_JUDGED = ("capacity_qdrant_memory",)
"""A server keeps of what it freed as much as its allocator likes: from one minute to the next it is half or twice."""
_RECALLS = 20


def run(bench: Bench) -> Iterator[Figure]:
    """The measured share of what was planned; met where each is within 30%. Of a Qdrant server too."""
    size = bench.scale.searched
    corpus = drawn(bench, size)
    with filled(corpus, bench, "capacity") as deployment:
        consolidate(deployment)
        settings = deployment.settings
    directory = settings.data_dir
    disk = served.disk(directory)
    graph = served.blocks(directory / GRAPH_FILE)
    characters = round(sum(map(len, corpus.words(0, min(size, 5000)))) / min(size, 5000))
    wanted = plan(Demand(size, characters=characters))
    measured = (
        ("capacity_graph_disk", graph, wanted.graph_disk),
        ("capacity_vectors_disk", disk - graph, wanted.vectors_disk),
        ("capacity_memory", alone(resident, settings), wanted.vectors_memory),
    )
    what = f"{size:,} episodes of {characters} characters"
    for name, found, planned in measured:
        yield _figure(name, found, planned, what)
    try:
        for name, found, planned in served.qdrant(corpus, bench, wanted):
            yield _figure(name, found, planned, what, judged=name not in NOT_JUDGED)
    except served.Unseen as why:
        yield skipped("capacity_qdrant", "share off the plan", str(why))


def _figure(name: str, found: int, planned: int, what: str, *, judged: bool = True) -> Figure:
    off = abs(found / planned - 1)
    note = f"{what}: {found / 2**20:,.1f} MiB measured, {planned / 2**20:,.1f} planned"
    return Figure(name, off, "share off the plan", WITHIN if judged else math.nan, low_is_good=True, note=note)


def resident(settings: Settings) -> int:
    """Bytes in memory of this process, which has opened the stores and answered a few recalls."""
    deployment = Deployment(settings)
    recall = recaller(deployment, Spread(_RECALLS).matrix)
    for i in range(_RECALLS):
        recall.recall(RecallRequest(f"what was said {i}", where=Where(sessions=(SESSION,)), limit=10, mode="flat"))
    found = int(psutil.Process().memory_info().rss)
    deployment.close()
    return found
