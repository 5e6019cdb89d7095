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
from ww_core.stores.embedded.vectors import open_shard, room
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, CONTEXT, Fingerprint, Point

MODEL = Fingerprint("m", "1", 384, "mean", True)
STEP, STEPS = 1_000, 40
SHORT = 40 * 1024**2
SEGMENT = 32 * 1024**2
"""What the engine takes away of its log at a time."""


def steps() -> Iterator[list[Point]]:
    rows = np.random.default_rng(1).standard_normal((STEP, MODEL.dimension)).astype(np.float32)
    for step in range(STEPS):
        yield [Point(f"e{step}-{i}", 0, 1, 1, "s", NOON, {CONTENT: row, CONTEXT: row}) for i, row in enumerate(rows)]


def log_bytes(directory: Path) -> int:
    return sum(room.size(wal) for wal in directory.rglob("wal"))


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
    assert longest(tmp_path / "bound") <= SHORT + SEGMENT < unbound


def test_what_was_written_out_and_what_was_not_is_there_after_a_kill(tmp_path: Path) -> None:
    process = get_context("spawn").Process(target=write_and_be_killed, args=(tmp_path / "shard",))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert log_bytes(tmp_path / "shard") <= SHORT + SEGMENT, "most was written out"
    shard = Shard(tmp_path / "shard", namespace="ww")
    assert shard.count() == STEP * STEPS
    shard.close()


def test_a_log_that_cannot_be_written_out_stays_and_the_write_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing:
        def __getattr__(self, name: str) -> object:
            return getattr(engine_shard, name)

        def flush(self) -> None:
            raise RuntimeError("os error 28")

    monkeypatch.setattr(open_shard, "LOG_BYTES", 0)
    shard = Shard(tmp_path, namespace="ww")
    shard.ensure(MODEL)
    engine_shard = shard._shard
    monkeypatch.setattr(shard, "_shard", Failing())
    shard.upsert(next(steps()))
    assert shard.count() == STEP
    assert "no space left on the disk of the vector store" in caplog.text
    monkeypatch.setattr(room, "free", lambda _: room.TO_WRITE)
    caplog.clear()
    shard.upsert(next(steps()))
    assert not caplog.text, "with so little room the engine is not asked"
    monkeypatch.undo()
    shard.close()
