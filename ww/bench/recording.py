"""What measuring costs: the same path with figures recorded and with a recorder that does nothing, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeAlias

import numpy as np

from ww.bench.corpus import fingerprint, made_up
from ww.bench.figure import Bench, Figure, cpu
from ww.bench.filled import SESSION, fill, ingest, recaller
from ww.bench.spread import DIMENSION, Spread
from ww.bench.store import texts
from ww_core.deployment import Deployment
from ww_core.observability.metrics import Metrics
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where

Call: TypeAlias = Callable[[int], object]
"""Takes the number of the call."""
Recording: TypeAlias = Callable[[Metrics], None]

MOST = 0.02
"""Share of a path's CPU time that recording may take."""
TURNS = 40
OFTEN = 10
"""Calls of one turn: the clock's own cost vanishes."""
STORED, BATCH, QUERIES = 2000, 200, 50
PUBLISHED_EVERY = 5.0
"""Seconds between two publications of a process's figures."""


class Nothing(Metrics):
    """Records nothing: what replaying recordings costs by itself."""

    def observe(self, stage: str, seconds: float) -> None: ...

    def increment(self, name: str, n: int = 1) -> None: ...

    def set_gauge(self, name: str, value: float) -> None: ...

    def timer(self, stage: str) -> AbstractContextManager[None]:
        return nullcontext()

    def operation(self, action: str) -> AbstractContextManager[None]:
        return nullcontext()


class Silent(Metrics):
    """Records nothing but which recordings were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Recording] = []

    def observe(self, stage: str, seconds: float) -> None:
        self.asked.append(lambda metrics: metrics.observe(stage, seconds))

    def increment(self, name: str, n: int = 1) -> None:
        self.asked.append(lambda metrics: metrics.increment(name, n))

    def set_gauge(self, name: str, value: float) -> None:
        self.asked.append(lambda metrics: metrics.set_gauge(name, value))

    def timer(self, stage: str) -> AbstractContextManager[None]:
        self.asked.append(lambda metrics: _block(metrics.timer(stage)))
        return nullcontext()

    def operation(self, action: str) -> AbstractContextManager[None]:
        self.asked.append(lambda metrics: _block(metrics.operation(action)))
        return nullcontext()


def _block(around: AbstractContextManager[None]) -> None:
    with around:
        pass


def run(bench: Bench) -> list[Figure]:
    """The cost on a single store, a batch and a recall with a cached query; and of publishing what was recorded."""
    deployment, metrics = Deployment(bench.place("recording", hierarchical_gap_sample=0)), Metrics()
    try:
        deployment.vectors.ensure(fingerprint(DIMENSION))
        fill(made_up(STORED, QUERIES), deployment)
        return [*_paths(deployment, metrics), _publishing(metrics)]
    finally:
        deployment.close()


def turn_by_turn(with_figures: Call, without: Call, turns: int) -> tuple[float, float]:
    """Seconds of CPU for one call of either, of the quick ones of many turns: what else the machine does only adds."""
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        pair = ((spent[0], with_figures), (spent[1], without))
        for seconds, call in pair if turn % 2 else reversed(pair):
            seconds.append(cpu(partial(_several, call, turn * OFTEN)) / OFTEN)
    on, off = (float(np.quantile(seconds, 0.2)) for seconds in spent)
    return on, off


def _several(call: Call, first: int) -> None:
    for i in range(first, first + OFTEN):
        call(i)


def cost(asked: Sequence[Recording], metrics: Metrics) -> float:
    """Seconds of CPU that recording all this takes: too little to be seen in the difference of two noisy turns."""

    def again() -> None:
        for _ in range(100):
            for record in asked:
                record(metrics)

    return min(cpu(again) for _ in range(TURNS)) / 100


def _paths(deployment: Deployment, metrics: Metrics) -> Iterator[Figure]:
    contents = texts(BATCH, "recorded")

    def single(metrics: Metrics) -> Call:
        into = ingest(deployment, metrics)
        return lambda i: into.store(f"{i} of {id(metrics)}", session_id="one")

    def batch(metrics: Metrics) -> Call:
        into = ingest(deployment, metrics)
        return lambda i: into.store_batch(f"{i} of {id(metrics)}, {text}" for text in contents)

    yield _figure("store", single, metrics, TURNS)
    yield _figure("store_batch", batch, metrics, TURNS // 5)
    yield _figure("recall", lambda metrics: _recalling(deployment, metrics), metrics, TURNS)


def _figure(name: str, path: Callable[[Metrics], Call], metrics: Metrics, turns: int) -> Figure:
    silent = Silent()
    on, off = turn_by_turn(path(metrics), path(silent), turns)
    recordings = len(silent.asked) / (turns * OFTEN)
    one = silent.asked[: round(recordings)]
    share = (cost(one, metrics) - cost(one, Nothing())) / off
    note = (
        f"{recordings:.0f} recordings a call; turn by turn {1000 * on:.3f} ms of CPU with figures and {1000 * off:.3f} "
        "without, noise included"
    )
    return Figure(f"recording_{name}", share, "share of the path", MOST, low_is_good=True, note=note)


def _recalling(deployment: Deployment, metrics: Metrics) -> Call:
    """As the application's recall: the operation around it, the stages within."""
    queries = Spread(QUERIES, seed=11).matrix
    asked = recaller(deployment, queries, None, None, None, metrics)

    def recall(i: int) -> None:
        with metrics.operation("recall"):
            asked.recall(RecallRequest(f"episode {i % QUERIES}", where=Where(sessions=(SESSION,)), limit=10))

    return recall


def _publishing(metrics: Metrics) -> Figure:
    share = cpu(metrics.dump) / PUBLISHED_EVERY
    note = f"reading all figures once in {PUBLISHED_EVERY:g} s"
    return Figure("recording_published", share, "share of one core", MOST, low_is_good=True, note=note)
