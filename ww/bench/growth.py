"""What a consolidation costs in time and memory by how much is stored, each run in a process of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from ww.bench.apart import alone, most_resident
from ww.bench.corpus import Corpus, drawn, fingerprint, made_up
from ww.bench.figure import Bench, Figure, wall
from ww.bench.filled import consolidate, fill
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.models import Run

T = TypeVar("T")

FIRST_SECONDS, FIRST_GIB, HOURLY_SECONDS, GROWTH = 120.0, 4.0, 10.0, 1.5
"""Targets: of the first run over 1 000 000 episodes, of one with 5 000 new among them, and of the same by 10 000."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run in a process of its own."""

    opening: float
    """Seconds that opening the stores took, which a worker has done long before."""
    seconds: float
    """From the request to the end of everything, what follows the publication included."""
    cpu: float
    """The same in seconds of CPU time, whoever else uses the machine."""
    gib: float
    """Most that was resident in the process, the pages of the stores' files included."""
    run: Run


def run(bench: Bench) -> Iterator[Figure]:
    """The first run over everything, then a run with few new episodes, at two sizes."""
    few, many, new = bench.scale.grown
    apart = bench.scale.name != "tiny"  # a process costs seconds to start, and so does the model
    corpus = drawn(bench, many + new) if apart else made_up(many + new, bench.scale.queries)
    origin = "vectors made from real ones with noise" if apart else "random vectors around topics"
    hourly = {}
    for size in (few, many):
        settings = bench.place(f"grown-{size}", consolidation_time_limit=3600)
        bench.say(f"storing {size:,} episodes")
        _do(_fill, settings, corpus, 0, size, apart=apart)
        bench.say("first run")
        first = _do(_consolidate, settings, apart=apart)
        _do(_fill, settings, corpus, size, size + new, apart=apart)
        bench.say(f"run with {new:,} new")
        hourly[size] = _do(_consolidate, settings, apart=apart)
    judged = bench.scale.full
    note = (
        f"{many:,} {origin}, {len(first.run.clusters)} clusters, {first.run.noise:,} unclustered; "
        f"visible after {first.run.seconds:.1f} s, {first.cpu:.0f} s of CPU"
    )
    yield Figure("first_run", first.seconds, "s", _target(FIRST_SECONDS, judged), low_is_good=True, note=note)
    yield Figure("first_run_memory", first.gib, "GiB", _target(FIRST_GIB, judged), low_is_good=True,
                 note="peak of the process, mapped pages of the stores included")  # fmt: skip
    note = f"{new:,} new among {many:,}; {hourly[many].gib:.2f} GiB, {hourly[many].cpu:.1f} s of CPU"
    yield Figure("hourly_run", hourly[many].seconds, "s", _target(HOURLY_SECONDS, judged), low_is_good=True, note=note)
    cold = hourly[many].opening + hourly[many].seconds
    yield Figure("hourly_run_cold", cold, "s", low_is_good=True, note="opening the stores included")
    growth = hourly[many].cpu / hourly[few].cpu
    note = (
        f"{new:,} new, from {few:,} to {many:,} stored: {hourly[few].cpu:.2f} s to {hourly[many].cpu:.2f} s of CPU, "
        f"{hourly[few].seconds:.2f} s to {hourly[many].seconds:.2f} s on the clock"
    )
    yield Figure("hourly_growth", growth, "x", _target(GROWTH, judged), low_is_good=True, note=note)


def _target(value: float, judged: bool) -> float:
    return value if judged else math.nan


def _do(work: Callable[..., T], *args: Any, apart: bool) -> T:
    """The answer of the work, done in a new process, so that what it takes is its own; here where not ``apart``."""
    return alone(work, *args) if apart else work(*args)


def _fill(settings: Settings, corpus: Corpus, low: int, high: int) -> None:
    """Store the embedded episodes from ``low`` to before ``high``."""
    deployment = Deployment(settings)
    deployment.vectors.ensure(fingerprint(corpus.queries.shape[1]))
    fill(corpus, deployment, low, high)
    deployment.close()


def _consolidate(settings: Settings) -> Cost:
    deployment = Deployment(settings)
    opening = wall(deployment.vectors.ping)
    started, worked = time.perf_counter(), time.process_time()
    done = consolidate(deployment)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    deployment.close()
    return Cost(opening, seconds, worked, most_resident(), done)
