"""The engine's log of a shard stays short while the shard is written to, and loses nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from tests.contract.vector_stores import NOON
from ww_core.stores.embedded.vectors import open_shard
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, CONTEXT, Fingerprint, Point

MODEL = Fingerprint("m", "1", 384, "mean", True)
STEP, STEPS = 1_000, 40
SHORT = 110 * 1024**2
"""The engine keeps 100 MB in any case."""


def steps() -> Iterator[list[Point]]:
    rows = np.random.default_rng(1).standard_normal((STEP, MODEL.dimension)).astype(np.float32)
    for step in range(STEPS):
        yield [Point(f"e{step}-{i}", 0, 1, 1, "s", NOON, {CONTENT: row, CONTEXT: row}) for i, row in enumerate(rows)]


def log_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("wal/*"))


def write_and_be_killed(directory: Path) -> None:
    open_shard.LOG_BYTES = SHORT
    shard = Shard(directory, namespace="ww")
    shard.ensure(MODEL)
    for points in steps():
        shard.upsert(points)
    os.kill(os.getpid(), signal.SIGKILL)


def longest(directory: Path) -> int:
    shard = Shard(directory, namespace="ww")
    shard.ensure(MODEL)
    most = 0
    for points in steps():
        shard.upsert(points)
        most = max(most, log_bytes(directory))
    shard.close()
    return most


def test_the_log_is_written_out_when_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unbound = longest(tmp_path / "unbound")
    monkeypatch.setattr(open_shard, "LOG_BYTES", SHORT)
    assert longest(tmp_path / "bound") < unbound


def test_what_was_written_out_and_what_was_not_is_there_after_a_kill(tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=write_and_be_killed, args=(tmp_path / "shard",))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    shard = Shard(tmp_path / "shard", namespace="ww")
    assert shard.count() == STEP * STEPS
    shard.close()
