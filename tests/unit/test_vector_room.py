"""A disk without room: the embedded vector store says so before the engine meets it, and reading goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.vector_stores import MODEL, point, unit
from ww_core.errors import NO_SPACE, StoreUnavailable
from ww_core.stores.embedded.vectors import rewrite, room
from ww_core.stores.embedded.vectors.engine import unavailable
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import CONTENT, Centroid, PointChange, Search

CHANGE = PointChange("a", dense={CONTENT: unit(0.0, 1.0)})
FULL = r"no space left on the disk of the vector store while .*: 3\.0 MB are free in .*free some space"


def leave(monkeypatch: pytest.MonkeyPatch, megabytes: float) -> None:
    monkeypatch.setattr(room, "free", lambda directory: int(megabytes * room.MEGABYTE))


def test_a_full_disk_refuses_to_begin(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(monkeypatch, 3)
    store = Shard(quick_path, namespace="ww")
    with pytest.raises(StoreUnavailable, match=FULL):
        store.ensure(MODEL)
    assert list(quick_path.iterdir()) == []
    leave(monkeypatch, 100)
    store.ensure(MODEL)
    store.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.upsert([point("b")]),
        lambda store: store.change([CHANGE]),
        lambda store: store.set_cells(["a"], ("c1",)),
        lambda store: store.put_centroids([Centroid("c", "s", "r", unit(1.0), 0.1)]),
        lambda store: store.delete(["a"]),
        lambda store: store.drop_centroids("s", keep=()),
        lambda store: store.scrub(),
    ],
)
def test_a_full_disk_refuses_writes_and_is_read(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Shard], None]
) -> None:
    store = Shard(quick_path, namespace="ww")
    store.ensure(MODEL)
    store.upsert([point("a")])
    leave(monkeypatch, 3)
    with pytest.raises(StoreUnavailable, match=FULL):
        write(store)
    assert [hit.episode_id for hit in store.search([Search(CONTENT, unit(1.0))])[0]] == ["a"]
    assert store.count() == 1
    leave(monkeypatch, 10_000)
    write(store)
    store.close()


def test_what_is_erased_goes_while_nothing_can_be_added(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Shard(quick_path, namespace="ww")
    store.ensure(MODEL)
    store.upsert([point("a")])
    leave(monkeypatch, 20)
    with pytest.raises(StoreUnavailable):
        store.upsert([point("b")])
    assert store.delete(["a"]) == 1
    store.close()


def test_holes_count_in_a_file_system_in_memory(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Shard(quick_path, namespace="ww")
    store.ensure(MODEL)
    store.upsert([point("a")])
    store.close()
    leave(monkeypatch, 3)
    monkeypatch.setattr(room, "file_system", lambda directory: "ext4")
    opened = Shard(quick_path, namespace="ww")
    assert opened.count() == 1
    opened.close()
    monkeypatch.setattr(room, "file_system", lambda directory: "tmpfs")
    with pytest.raises(StoreUnavailable, match="while opening it"):
        Shard(quick_path, namespace="ww")


def test_the_engines_own_word_of_a_full_disk_is_heard_behind_long_paths() -> None:
    said = Exception(
        f"Failed to flush: failed to write to file `{'/long' * 80}`: No space left on device (os error 28)"
    )
    assert NO_SPACE in unavailable("closing it", said).message


def test_the_kind_of_file_system_is_known() -> None:
    assert room.file_system(Path("/proc")) in ("proc", "")
    assert room.free(Path("/")) >= 0


def test_closing_ends_a_scrub_and_keeps_the_old_shard(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is still in the engine when the interpreter ends would abort the process."""
    store = Shard(quick_path, namespace="ww")
    store.ensure(MODEL)
    store.upsert([point("a")])
    begun, on = threading.Event(), threading.Event()
    copy = rewrite.copy

    def slowly(*given: object) -> None:
        begun.set()
        on.wait(10)
        copy(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(rewrite, "copy", slowly)
    said: list[BaseException] = []

    def scrub() -> None:
        try:
            store.scrub()
        except StoreUnavailable as error:
            said.append(error)

    scrubbing = threading.Thread(target=scrub)
    scrubbing.start()
    assert begun.wait(10)
    closing = threading.Thread(target=store.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive(), "it waits for the scrub"
    on.set()
    closing.join(10)
    assert not closing.is_alive()
    scrubbing.join(10)
    assert "is being closed" in str(said[0])
    again = Shard(quick_path, namespace="ww")
    assert again.count() == 1
    assert [found.name for found in quick_path.glob("*/shard-*")] == ["shard-1"]
    again.close()
