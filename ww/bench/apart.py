"""Work in a process of its own, so that the memory and the caches it takes are its own."""

from __future__ import annotations

import multiprocessing
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from ww.bench.figure import Bench, Figure, broken

T = TypeVar("T")
Benchmark: TypeAlias = Callable[[Bench], Iterator[Figure]]

END_SECONDS = 10.0
"""How long a process that has said everything, or is told to stop, may take to end."""


def alone(work: Callable[..., T], *args: Any) -> T:
    """The answer of a module's function, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def aside(bench: Bench, work: Callable[..., T], *args: Any) -> T:
    """``alone``, but at a tiny scale called here: a process takes seconds to start, and what it takes is not judged."""
    return work(*args) if bench.scale.name == "tiny" else alone(work, *args)


def most_resident() -> float:
    """GiB that this process had in memory at its most, the mapped pages of its files included."""
    status = Path("/proc/self/status")  # a child's rusage starts at its parent's: Linux knows its own
    if status.exists():
        (kib,) = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return kib / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)


def figures(name: str, benchmark: Benchmark, bench: Bench) -> Iterator[Figure]:
    """What a benchmark measures in a new process, figure by figure; where it breaks or dies, one at the end says so."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    given = (theirs, name, benchmark, replace(bench, say=print))  # what it says now is of this process
    process = context.Process(target=_report, args=given)
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


def _report(pipe: Connection, name: str, benchmark: Benchmark, bench: Bench) -> None:
    """In the other process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        for figure in benchmark(replace(bench, say=pipe.send)):
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
