"""The benchmarks by name, and running them one after the other."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from ww.bench.apart import figures
from ww.bench.figure import Bench, Figure, Scale
from ww_core.config import Settings
from ww_core.errors import InvalidInput

Say: TypeAlias = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A benchmark: the function that measures, what it measures, and about how many minutes it takes on two cores."""

    module: str
    function: str
    what: str
    quick: float
    full: float

    def minutes(self, scale: Scale) -> float:
        return self.full if scale.full else self.quick

    def run(self, bench: Bench) -> Iterator[Figure]:
        """Measure; its module is imported only now."""
        yield from getattr(importlib.import_module(self.module), self.function)(bench)


BENCHMARKS: Mapping[str, Entry] = {
    "store": Entry("ww.bench.store", "run", "episodes acknowledged per second, and the time of one", 0.5, 2),
    "encoder": Entry("ww.bench.embedding", "encoder", "texts embedded per second", 1, 4),
    "drain": Entry("ww.bench.embedding", "drain", "episodes from pending to findable per second", 1.5, 2.5),
    "recall": Entry("ww.bench.searching", "run", "the time of a recall, and what searching by clusters finds", 1, 14),
    "search": Entry("ww.bench.intents", "run", "whether a query finds its own kind", 1, 5),
    "consolidation": Entry("ww.bench.consolidation", "run", "time and memory of runs, and how good they are", 4, 19),
    "locomo": Entry("ww.bench.conversations", "run", "evidence found in long conversations", 1, 2),
    "faults": Entry("ww.bench.faults", "run", "what kills, freezes and outages lose, and the time to recover", 4, 10),
    "guide": Entry("ww.bench.guide", "run", "what each optimisation of the performance page gains", 4, 12),
    "recording": Entry("ww.bench.recording", "run", "what measuring costs of the paths that are measured", 0.2, 0.2),
    "stages": Entry("ww.bench.stages", "run", "where the time of an episode and of a recall goes", 0.5, 1),
    "capacity": Entry("ww.bench.capacity", "run", "disk and memory, beside what ww plan says", 1, 15),
}
"""By name. Modules are imported when they are asked for."""

ALL = "all"


def measure(
    names: Sequence[str], settings: Settings, scale: Scale, *, say: Say = lambda _: None, apart: bool = False
) -> Iterator[Figure]:
    """Run the benchmarks one after the other in a temporary directory, on embedded stores; ``say`` hears the progress.

    ``apart``: each in a process of its own, so that its memory is its own, and one that dies takes no other's figures
    with it. Raises InvalidInput where a name is unknown.
    """
    wanted = list(BENCHMARKS) if ALL in names or not names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in BENCHMARKS:
            raise InvalidInput(f"no benchmark {name!r}", hint=f"use {', '.join(BENCHMARKS)} or {ALL}")
    alone = settings.replace(redis_url=None, qdrant_url=None, neo4j_uri=None, embedding_mode="local", hooks=())
    left = sum(BENCHMARKS[name].minutes(scale) for name in wanted)
    with TemporaryDirectory(prefix="ww-bench-", ignore_cleanup_errors=True) as directory:
        for name in wanted:
            entry = BENCHMARKS[name]
            say(f"{name}: {entry.what} (about {entry.minutes(scale):g} min; {left:g} min in all from here)")
            left -= entry.minutes(scale)
            bench = Bench(Path(directory, name), scale, alone, say, Path(directory))
            bench.directory.mkdir()
            try:
                yield from figures(name, entry.run, bench) if apart else entry.run(bench)
            finally:
                shutil.rmtree(bench.directory, ignore_errors=True)
