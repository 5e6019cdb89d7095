"""The sizes of performance tests, and how long all of them may take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest

from ww.bench import Figure, Scale, measure
from ww.bench.figure import SCALES
from ww_core.config import Settings

Measured: TypeAlias = Callable[[str], list[Figure]]
"""From a benchmark's name to its figures."""

MOST_SECONDS = 300.0
"""Of CPU time of the tests here that one process runs, and of the processes they waited for, which others on the
machine change little: about 180 of all of them on two cores that are busy with other work. Servers that outlive the run
are not in it."""

ENCODED = 40
"""Texts for the encoder beside its peer."""
BESIDE_OTHERS = ("test_bench.py",)
"""What is judged by its answers: it may run beside other tests. All else here is ``alone``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.name not in BESIDE_OTHERS:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """Batches are stored at the 10 000 rows of `ww bench`, the encoder has enough to be judged, everything else is
    at tiny sizes, which prove that it is measured; full figures are all judged."""
    if request.config.getoption("--scale", default="quick") == "full":
        return SCALES["full"]
    return replace(SCALES["tiny"], stored=SCALES["quick"].stored)


@pytest.fixture(scope="session")
def measured(scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> Measured:
    """What each benchmark measures at this scale, once for all tests that look at it."""

    @cache
    def found(name: str) -> list[Figure]:
        settings = Settings(data_dir=tmp_path_factory.mktemp(name))
        size = scale
        if name == "encoder" and not scale.full:  # its floor is that of one thread of a CPU
            size, settings = replace(scale, encoded=ENCODED), settings.replace(embedding_device="cpu")
        return list(measure([name], settings, size))

    return found


@pytest.fixture(scope="package", autouse=True)
def _in_bounded_time(scale: Scale) -> Iterator[None]:
    before = _cpu_seconds()
    yield
    spent = _cpu_seconds() - before
    print(f"\nall performance tests: {spent:.0f} s of CPU time")
    assert scale.full or spent < MOST_SECONDS, f"{spent:.0f} s of CPU time"


def _cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
