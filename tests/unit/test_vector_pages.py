"""Vectors that were read are let go of, and nothing that lies in memory is lost by it."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np

from tests.contract.vector_stores import NOON
from ww_core.stores.embedded.vectors import engine
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, Fingerprint, Point

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


def test_vectors_that_were_read_are_let_go_of_and_read_again(tmp_path: Path) -> None:
    rows = np.random.default_rng(1).standard_normal((POINTS, DIMENSION)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"e{i}" for i in range(POINTS)]
    shard = Shard(tmp_path, namespace="ww")
    shard.ensure(Fingerprint("m", "1", DIMENSION, "mean", True))
    shard.upsert([Point(n, 0, 1, 1, "s", NOON, {CONTENT: row}) for n, row in zip(names, rows, strict=True)])
    shard.close()
    shard = Shard(tmp_path, namespace="ww")
    for _ in range(2):
        found = shard.vectors(names)
        np.testing.assert_allclose(np.stack([stored.vector for stored in found]), rows, atol=1e-6)
        held = resident(tmp_path)
        assert held > POINTS * DIMENSION * 4 / 1024 * 0.9
        engine.release_pages(tmp_path)
        assert resident(tmp_path) < held / 5
    shard.close()


def test_memory_that_was_taken_by_something_else_meanwhile_keeps_its_content() -> None:
    content = bytes(range(256)) * 4096
    with mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[:] = content
        start = ctypes.c_char.from_buffer(area)
        engine.page_out(ctypes.addressof(start), len(content))
        del start
        assert area[:] == content
