"""What episodes take on disk and in memory, beside what ``ww plan`` says: the constants of ww_core/capacity.yaml."""

from __future__ import annotations

from pathlib import Path

import psutil

from ww.bench.apart import alone
from ww.bench.corpus import drawn
from ww.bench.figure import Bench, Figure
from ww.bench.filled import SESSION, consolidate, filled, recaller
from ww.bench.spread import Spread
from ww_core.capacity import Demand, plan
from ww_core.config import Settings
from ww_core.deployment import GRAPH_FILE, Deployment
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where

WITHIN = 0.3
"""Share by which the plan may be wrong."""
_RECALLS = 20


def run(bench: Bench) -> list[Figure]:
    """The measured share of what was planned; met where each is within 30%."""
    size = bench.scale.searched
    corpus = drawn(bench, size)
    with filled(corpus, bench, "capacity") as deployment:
        consolidate(deployment)
        settings = deployment.settings
    directory = settings.data_dir
    disk = _disk(directory)
    graph = _blocks(directory / GRAPH_FILE)
    characters = round(sum(map(len, corpus.words(0, min(size, 5000)))) / min(size, 5000))
    wanted = plan(Demand(size, characters=characters))
    measured = (
        ("capacity_graph_disk", graph, wanted.graph_disk),
        ("capacity_vectors_disk", disk - graph, wanted.vectors_disk),
        ("capacity_memory", alone(resident, settings), wanted.vectors_memory),
    )
    return [
        _figure(name, found, planned, f"{size:,} episodes of {characters} characters")
        for name, found, planned in measured
    ]


def _figure(name: str, found: int, planned: int, what: str) -> Figure:
    off = abs(found / planned - 1)
    note = f"{what}: {found / 2**20:,.1f} MiB measured, {planned / 2**20:,.1f} planned"
    return Figure(name, off, "share off the plan", WITHIN, low_is_good=True, note=note)


def resident(settings: Settings) -> int:
    """Bytes in memory of this process, which has opened the stores and answered a few recalls."""
    deployment = Deployment(settings)
    recall = recaller(deployment, Spread(_RECALLS).matrix)
    for i in range(_RECALLS):
        recall.recall(RecallRequest(f"what was said {i}", where=Where(sessions=(SESSION,)), limit=10, mode="flat"))
    found = int(psutil.Process().memory_info().rss)
    deployment.close()
    return found


def _disk(directory: Path) -> int:
    return sum(_blocks(path) for path in directory.rglob("*") if path.is_file())


def _blocks(path: Path) -> int:
    return path.stat().st_blocks * 512
