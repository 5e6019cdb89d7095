"""Benchmarks that break, are killed or wait. They import little: each runs in processes of its own, which load it.

Run as ``python -m tests.performance.breaking DATA_DIR`` it measures, apart, the one that waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from ww.bench import registry
from ww.bench.apart import alone
from ww.bench.figure import SCALES, Bench, Figure
from ww.bench.registry import Entry
from ww_core.config import Settings

HERE = "tests.performance.breaking"


def breaking(bench: Bench) -> Iterator[Figure]:
    """Yields one figure and breaks, or is killed."""
    yield Figure("before", 1, "1/s", 1)
    if bench.settings.namespace == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("this one\nbreaks")


def starting(bench: Bench) -> Iterator[Figure]:
    """Starts a process of its own, and says so."""
    bench.say("starting")
    yield Figure("parent", alone(os.getppid), "pid")


def sharing(bench: Bench) -> Iterator[Figure]:
    """How many came before, by what each leaves among what is kept; the note is where that lies."""
    folder = bench.kept("left").data_dir
    folder.mkdir(parents=True, exist_ok=True)
    before = len(list(folder.iterdir()))
    (folder / str(before)).touch()
    yield Figure("before", before, "benchmarks", note=str(folder))


def holding(bench: Bench) -> Iterator[Figure]:
    """Starts a server in a session of its own, and waits for something."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as server:
        try:
            bench.say(f"server {server.pid}")
            server.wait()
        finally:
            server.kill()
    yield Figure("never", 1, "1/s")


def main(data_dir: str) -> None:
    registry.BENCHMARKS = {"one": Entry(HERE, "holding", "a test", 1, 2)}
    settings = Settings(data_dir=data_dir)
    list(registry.measure(["one"], settings, SCALES["tiny"], say=lambda line: print(line, flush=True), apart=True))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
    main(sys.argv[1])
