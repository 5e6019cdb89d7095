"""What a consolidation costs in time and memory by how much is stored, each run in a process of its own."""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ww.bench import data
from ww.bench.corpus import NOISE, fingerprint
from ww.bench.figure import Bench, Figure
from ww.bench.filled import SESSION, START, WRITTEN_AT_ONCE, consolidate, embedded
from ww.bench.spread import DIMENSION, Spread, unit
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.models import Episode, Run, Vector

T = TypeVar("T")

FIRST_SECONDS, FIRST_GIB, HOURLY_SECONDS, GROWTH = 120.0, 4.0, 10.0, 1.5
"""Targets: of the first run over 1 000 000 episodes, of one with 5 000 new among them, and of the same by 10 000."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run. ``gib`` is the most that was resident in its process, the pages of the stores' files included."""

    seconds: float
    gib: float
    run: Run


def run(bench: Bench) -> Iterator[Figure]:
    """The first run over everything, then a run with few new episodes, at two sizes."""
    base, origin = _base(bench)
    few, many, new = bench.scale.grown
    hourly = {}
    apart = bench.scale.name != "tiny"  # a process costs seconds to start
    for size in (few, many):
        settings = bench.place(f"grown-{size}", consolidation_time_limit=3600)
        bench.say(f"storing {size:,} episodes")
        _do(_fill, settings, base, 0, size, apart=apart)
        bench.say("first run")
        first = _do(_consolidate, settings, apart=apart)
        _do(_fill, settings, base, size, new, apart=apart)
        bench.say(f"run with {new:,} new")
        hourly[size] = _do(_consolidate, settings, apart=apart)
    judged = bench.scale.full
    note = f"{many:,} {origin}, {len(first.run.clusters)} clusters, {first.run.noise:,} unclustered"
    yield Figure("first_run", first.seconds, "s", _target(FIRST_SECONDS, judged), low_is_good=True, note=note)
    yield Figure("first_run_memory", first.gib, "GiB", _target(FIRST_GIB, judged), low_is_good=True,
                 note="peak of the process, mapped pages of the stores included")  # fmt: skip
    note = f"{new:,} new among {many:,}; {hourly[many].gib:.2f} GiB"
    yield Figure("hourly_run", hourly[many].seconds, "s", _target(HOURLY_SECONDS, judged), low_is_good=True, note=note)
    growth = hourly[many].seconds / hourly[few].seconds
    note = f"{new:,} new, from {few:,} to {many:,} stored: {hourly[few].seconds:.2f} s to {hourly[many].seconds:.2f} s"
    yield Figure("hourly_growth", growth, "x", _target(GROWTH, judged), low_is_good=True, note=note)


def _target(value: float, judged: bool) -> float:
    return value if judged else math.nan


def _base(bench: Bench) -> tuple[Vector, str]:
    """Vectors (n, 384) that episodes are made of by adding noise, and where they are from."""
    if bench.scale.name == "tiny" or data.absent(data.BANKING) or data.absent(data.CLINC):
        return Spread(5000).matrix, "random vectors around topics"
    from ww_core.embedding import EmbeddingService

    service = EmbeddingService(bench.settings)
    try:
        return service.encode([*data.banking().texts, *data.clinc().texts]), "vectors made from real ones with noise"
    finally:
        service.close()


def _do(work: Callable[..., T], *args: Any, apart: bool) -> T:
    """The answer of the work, done in a new process, so that what it takes is its own; here where not ``apart``."""
    if not apart:
        return work(*args)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def _fill(settings: Settings, base: Vector, start: int, count: int) -> None:
    """Store ``count`` embedded episodes, numbered from ``start``."""
    deployment = Deployment(settings)
    deployment.vectors.ensure(fingerprint(DIMENSION))
    for low in range(start, start + count, WRITTEN_AT_ONCE):
        numbers = range(low, min(low + WRITTEN_AT_ONCE, start + count))
        rng = np.random.default_rng([7, low])
        of = rng.integers(0, len(base), len(numbers))
        rows = unit(base[of] + NOISE * rng.standard_normal((len(of), DIMENSION)) / DIMENSION**0.5)
        episodes = [
            Episode(
                f"subject{k} item{i} about topic{k % 97}",
                episode_id=f"e{i}",
                session_id=SESSION,
                timestamp=START + timedelta(seconds=i),
            )
            for i, k in zip(numbers, of, strict=True)
        ]
        embedded(deployment, episodes, rows)
    deployment.close()


def _consolidate(settings: Settings) -> Cost:
    deployment = Deployment(settings)
    deployment.vectors.ping()  # a worker has them open
    done = consolidate(deployment)
    deployment.close()
    return Cost(done.seconds, _most_resident(), done)


def _most_resident() -> float:
    """GiB. A child's rusage starts at its parent's: Linux knows its own."""
    status = Path("/proc/self/status")
    if status.exists():
        (kib,) = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return kib / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)
