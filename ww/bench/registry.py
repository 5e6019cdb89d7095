"""The benchmarks by name, and running them."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ww.bench.figure import Bench, Figure, Scale
from ww_core.config import Settings
from ww_core.errors import InvalidInput

BENCHMARKS: Mapping[str, tuple[str, str, str]] = {
    "store": ("ww.bench.store", "run", "episodes acknowledged per second, and the time of one"),
    "encoder": ("ww.bench.embedding", "encoder", "texts embedded per second"),
    "drain": ("ww.bench.embedding", "drain", "episodes from pending to findable per second"),
    "recall": ("ww.bench.searching", "run", "the time of a recall, and what searching by clusters finds"),
    "search": ("ww.bench.intents", "run", "whether a query finds its own kind"),
    "consolidation": ("ww.bench.consolidation", "run", "time and memory of runs, and how good the clusters are"),
    "locomo": ("ww.bench.conversations", "run", "evidence found in long conversations"),
    "guide": ("ww.bench.guide", "run", "what each optimisation of the performance page gains, before and after"),
    "recording": ("ww.bench.recording", "run", "what measuring costs of the paths that are measured"),
    "capacity": ("ww.bench.capacity", "run", "disk and memory, beside what ww plan says"),
}
"""Name -> module, function and what is measured. Modules are imported when they are asked for."""

ALL = "all"


def measure(
    names: Sequence[str], settings: Settings, scale: Scale, *, say: Callable[[str], None] = lambda _: None
) -> Iterator[Figure]:
    """Run the benchmarks one after the other in a temporary directory, on embedded stores; ``say`` hears the progress.

    Raises InvalidInput where a name is unknown.
    """
    wanted = list(BENCHMARKS) if ALL in names or not names else list(dict.fromkeys(names))
    for name in wanted:
        if name not in BENCHMARKS:
            raise InvalidInput(f"no benchmark {name!r}", hint=f"use {', '.join(BENCHMARKS)} or {ALL}")
    alone = settings.replace(redis_url=None, qdrant_url=None, neo4j_uri=None, embedding_mode="local", hooks=())
    for name in wanted:
        module, function, _ = BENCHMARKS[name]
        say(name)
        directory = Path(tempfile.mkdtemp(prefix="ww-bench-"))
        try:
            yield from getattr(importlib.import_module(module), function)(Bench(directory, scale, alone, say))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
