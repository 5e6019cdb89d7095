"""Vectors that were read are let go of, and never while their files could be unmapped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.contract.vector_stores import NOON
from ww_core.stores.embedded.vectors import engine
from ww_core.stores.embedded.vectors import shard as shards
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, Fingerprint, Point, Search

POINTS, DIMENSION = 10_000, 384


def resident(directory: Path) -> int:
    """KiB of the whole vectors below the directory that this process holds."""
    total, counted = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            counted = str(directory) in line and engine.WHOLE_VECTORS in line
        elif counted and line.startswith("Rss:"):
            total += int(line.split()[1])
    return total


def test_vectors_that_were_read_are_let_go_of_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "READ_AND_RELEASED", 2 * POINTS)
    rows = np.random.default_rng(1).standard_normal((POINTS, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"e{i}" for i in range(POINTS)]
    shard = Shard(tmp_path, namespace="ww")
    shard.ensure(Fingerprint("m", "1", DIMENSION, "mean", True))
    shard.upsert([Point(n, 0, 1, 1, "s", NOON, {CONTENT: row}) for n, row in zip(names, rows, strict=True)])
    shard.close()
    shard = Shard(tmp_path, namespace="ww")
    held = []
    for _ in range(4):
        found = shard.vectors(names)
        np.testing.assert_allclose(np.stack([stored.vector for stored in found]), rows, atol=1e-6)
        held.append(resident(tmp_path))
    assert min(held[0], held[2]) > POINTS * DIMENSION * 4 / 1024 * 0.9
    assert max(held[1], held[3]) < held[0] / 5, "every second reading reaches the bound"
    shard.close()


def test_pages_are_let_go_of_while_nothing_can_unmap_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "READ_AND_RELEASED", 1)
    shard = Shard(tmp_path, namespace="ww")
    shard.ensure(Fingerprint("m", "1", 2, "mean", True))
    shard.upsert([Point("a", 0, 1, 1, "s", NOON, {CONTENT: np.array([1, 0], np.float32)})])
    writable: list[bool] = []

    def release(_: Path) -> None:
        with ThreadPoolExecutor(1) as another:
            writable.append(another.submit(shard._write.acquire, blocking=False).result())

    monkeypatch.setattr(engine, "release_pages", release)
    assert len(shard.vectors(["a"])) == 1
    assert writable == [False]
    with shard._write, ThreadPoolExecutor(1) as another:
        assert len(another.submit(shard.vectors, ["a"]).result()) == 1
    assert writable == [False], "they stay for now where something is being written"
    shard.close()


def reads_ahead(directory: Path) -> dict[str, bool]:
    """Of the files of whole vectors and of payloads: whether their mappings are read ahead."""
    found: dict[str, bool] = {}
    kind = ""
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = str(directory) in line and line.split()[1] == "rw-s"
            kind = next((k for k in (engine.WHOLE_VECTORS, engine.PAYLOADS) if ours and k in line), "")
        elif kind and line.startswith("VmFlags"):
            found[kind] = found.get(kind, True) and "rr" not in line.split()
    return found


def test_a_pass_reads_ahead_until_something_is_searched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(shards.time, "monotonic", lambda: now)
    names = [f"e{i}" for i in range(shards.MANY)]
    row = np.array([1, 0], np.float32)
    shard = Shard(tmp_path, namespace="ww")
    shard.ensure(Fingerprint("m", "1", 2, "mean", True))
    shard.upsert([Point(name, 0, 1, 1, "s", NOON, {CONTENT: row}) for name in names])

    def ahead() -> set[bool]:
        found = reads_ahead(tmp_path)
        assert set(found) == {engine.WHOLE_VECTORS, engine.PAYLOADS}
        return set(found.values())

    assert ahead() == {False}
    shard.vectors(names[1:], single=True)
    shard.vectors(names)
    assert ahead() == {False}, "few, and in no order"
    assert len(shard.vectors(names, single=True)) == len(names)
    assert ahead() == {True}
    assert len(shard.search([Search(CONTENT, row)])[0]) == 10
    assert ahead() == {False}
    shard.set_cells(names, ("c1",))
    assert ahead() == {False}, "a moment ago something was searched for"
    now += shards.AHEAD_SECONDS
    shard.set_cells(names, ("c1",))
    assert ahead() == {True}
    shard.close()
