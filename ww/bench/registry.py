"""The benchmarks by name, and running each in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from ww.bench.apart import most_resident
from ww.bench.figure import Bench, Figure, Scale, broken
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


BENCHMARKS: Mapping[str, Entry] = {
    "store": Entry("ww.bench.store", "run", "episodes acknowledged per second, and the time of one", 1, 2),
    "encoder": Entry("ww.bench.embedding", "encoder", "texts embedded per second", 2, 5),
    "drain": Entry("ww.bench.embedding", "drain", "episodes from pending to findable per second", 2, 4),
    "recall": Entry("ww.bench.searching", "run", "the time of a recall, and what searching by clusters finds", 1, 25),
    "search": Entry("ww.bench.intents", "run", "whether a query finds its own kind", 1, 5),
    "consolidation": Entry("ww.bench.consolidation", "run", "time and memory of runs, and how good they are", 4, 25),
    "locomo": Entry("ww.bench.conversations", "run", "evidence found in long conversations", 2, 12),
    "faults": Entry("ww.bench.faults", "run", "what kills, freezes and outages lose, and the time to recover", 4, 10),
    "guide": Entry("ww.bench.guide", "run", "what each optimisation of the performance page gains", 4, 12),
    "recording": Entry("ww.bench.recording", "run", "what measuring costs of the paths that are measured", 0.5, 0.5),
    "capacity": Entry("ww.bench.capacity", "run", "disk and memory, beside what ww plan says", 1, 5),
}
"""By name. Modules are imported when they are asked for."""

ALL = "all"
END_SECONDS = 10.0
"""How long a process that has said everything, or is told to stop, may take to end."""


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
    for name in wanted:
        entry = BENCHMARKS[name]
        say(f"{name}: {entry.what} (about {entry.minutes(scale):g} min; {left:g} min in all from here)")
        left -= entry.minutes(scale)
        directory = Path(tempfile.mkdtemp(prefix="ww-bench-"))
        try:
            bench = Bench(directory, scale, alone, say)
            yield from _apart(name, entry, bench) if apart else _here(entry, bench)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _here(entry: Entry, bench: Bench) -> Iterator[Figure]:
    yield from getattr(importlib.import_module(entry.module), entry.function)(bench)


def _apart(name: str, entry: Entry, bench: Bench) -> Iterator[Figure]:
    """What another process measures, figure by figure; where it breaks or dies, a figure that says so at the end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(theirs, name, entry, bench.directory, bench.scale, bench.settings))
    started = time.monotonic()
    process.start()
    theirs.close()
    over = False
    try:
        while not over:
            try:
                said = ours.recv()
            except EOFError:
                process.join(END_SECONDS)
                yield broken(name, f"its process ended with {process.exitcode}")
                return
            if isinstance(said, Figure):
                over = said.failed
                yield said
            elif said is None:
                over = True
            else:
                bench.say(said)
    finally:
        ours.close()
        if not over:  # it may have servers and workers of its own to end
            process.terminate()
        try:
            process.join(END_SECONDS)
        finally:
            process.kill()
            process.join()
    bench.say(f"  {name} took {time.monotonic() - started:.0f} s")


def _report(pipe: Connection, name: str, entry: Entry, directory: Path, scale: Scale, settings: Settings) -> None:
    """In the other process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        for figure in _here(entry, Bench(directory, scale, settings, pipe.send)):
            pipe.send(figure)
    except Exception as error:  # the other benchmarks' figures must come out whatever breaks here
        traceback.print_exc()
        pipe.send(broken(name, f"{type(error).__name__}: {' '.join(str(error).split())}"))
        return
    pipe.send(f"  {name} had up to {most_resident():.1f} GiB of memory")
    pipe.send(None)


def _end(number: int, _: object) -> None:
    """Unwind, so that whatever was started is ended; nothing interrupts that."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)
