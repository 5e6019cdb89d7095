"""What searches read is read ahead when a large shard is opened, within bounds, and never in the way of closing."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.contract.vector_stores import NOON
from tests.processes import in_child
from ww_core.stores.embedded.vectors import EdgeVectorStore, engine, warming
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.embedded.vectors.warming import Warming
from ww_core.stores.ports import CONTENT, Fingerprint, Point, Search

MODEL = Fingerprint("m", "1", 384, "mean", True)
PATIENCE = 60.0
UNENDING = 1 << 42
"""Bytes of a file that is all hole: reading them takes minutes."""


def points(count: int) -> list[Point]:
    rows = np.random.default_rng(1).standard_normal((count, MODEL.dimension)).astype(np.float32)
    return [Point(f"e{i}", 0, 1, 1, "s", NOON, {CONTENT: row}) for i, row in enumerate(rows)]


def make(directory: Path, count: int = 500) -> None:
    shard = Shard(directory, namespace="ww")
    shard.ensure(MODEL)
    shard.upsert(points(count))
    shard.close()


def cached(path: Path) -> bool:
    """Whether the first page of a file is in the system's cache."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(file, [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False
    except OSError:
        pytest.skip("the file system does not tell")
    finally:
        os.close(file)


def searched(directory: Path) -> list[Path]:
    vectors = list(directory.rglob(f"vector_storage-{CONTENT}/vectors/chunk_*"))
    payloads = list(directory.rglob("payload_storage/page_*"))
    assert vectors, "the engine keeps whole vectors elsewhere"
    assert payloads, "the engine keeps payloads elsewhere"
    return vectors + payloads


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="the system does not tell what it has cached")
def test_a_large_shard_is_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    monkeypatch.setattr(engine, "COMPRESSED_FROM", 500)
    for path in searched(tmp_path):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)
    shard = Shard(tmp_path, namespace="ww")
    assert shard._warming is not None
    assert shard._warming.wait(PATIENCE)
    assert all(cached(path) for path in searched(tmp_path))
    shard.close()


def test_small_and_cold_shards_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    small = Shard(tmp_path, namespace="ww")
    assert small._warming is None
    small.close()
    monkeypatch.setattr(engine, "COMPRESSED_FROM", 1)
    cold = Shard(tmp_path, namespace="ww", cold=True)
    assert cold._warming is None
    cold.close()


def files(directory: Path, *sizes: int) -> list[Path]:
    """Files such as a shard has, of these sizes, in the order in which they are read."""
    folder = directory / "segments" / "one" / f"vector_storage-{CONTENT}" / "vectors"
    folder.mkdir(parents=True)
    made = [folder / f"chunk_{i}.mmap" for i in range(len(sizes))]
    for path, size in zip(made, sizes, strict=True):
        with path.open("wb") as file:
            file.truncate(size)
    return made


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose reading began."""
    begun: list[str] = []
    ordinary: Callable[[Warming, Path, bytearray], bool] = Warming._read

    def reading(self: Warming, path: Path, piece: bytearray) -> bool:
        begun.append(path.name)
        return ordinary(self, path, piece)

    monkeypatch.setattr(Warming, "_read", reading)
    return begun


def test_it_fills_no_more_than_its_share_of_the_memory(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files(tmp_path, 4096, 4096, 4096)
    monkeypatch.setattr(warming, "available", lambda: 2 * 4096 / warming.SHARE)
    assert Warming(tmp_path).wait(PATIENCE)
    assert read == ["chunk_0.mmap", "chunk_1.mmap"]


def test_a_file_that_is_gone_is_passed_over(tmp_path: Path, read: list[str]) -> None:
    gone, _ = files(tmp_path, 4096, 4096)
    gone.unlink()
    gone.symlink_to(tmp_path / "nowhere")
    assert Warming(tmp_path).wait(PATIENCE)
    assert read == ["chunk_1.mmap"]


def test_stopping_does_not_wait_for_its_end(tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path, UNENDING, 4096)
    monkeypatch.setattr(warming, "available", lambda: float("inf"))
    running = Warming(tmp_path)
    assert not running.wait(0.1)
    running.stop()
    assert running.wait(0)
    assert read == ["chunk_0.mmap"]


def test_without_a_thread_nothing_is_read_ahead_and_nothing_fails(
    tmp_path: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    files(tmp_path, 4096)
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    Warming(tmp_path).stop()
    assert read == []


def test_memory_that_is_to_be_had() -> None:
    assert warming.available() > 1 << 20


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_of_an_owner_that_reads_ahead(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has neither the thread nor the file that it reads."""
    monkeypatch.setattr(engine, "COMPRESSED_FROM", 1)
    store = EdgeVectorStore.open(quick_path, namespace="ww")
    store.ensure(MODEL)
    store.upsert(points(50))
    store.close()
    entered = threading.Event()

    def reading(self: Warming, path: Path, piece: bytearray) -> bool:
        file = os.open(path, os.O_RDONLY)
        entered.set()
        self._stopped.wait()
        os.close(file)
        return False

    monkeypatch.setattr(Warming, "_read", reading)
    search = Search(CONTENT, np.ones(MODEL.dimension, np.float32), limit=5)
    try:
        assert len(store.search([search])[0]) == 5
        assert entered.wait(PATIENCE)

        def child() -> None:
            assert not [name for name in os.listdir("/dev/fd") if below(name, quick_path)]
            assert len(store.search([search])[0]) == 5
            assert store.info()["role"] == "client"
            store.close()

        assert in_child(child) == 0
        assert len(store.search([search])[0]) == 5
    finally:
        store.close()
    assert "ww-vectors-warm" not in {thread.name for thread in threading.enumerate()}


def below(descriptor: str, directory: Path) -> bool:
    """Whether an open file lies below the directory."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{directory}/")
    except OSError:
        return False
