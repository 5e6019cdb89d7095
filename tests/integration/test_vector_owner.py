"""One owner, many clients: death, forks, strangers, long paths, and what is left on disk."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.contract.vector_stores import MODEL, point, unit, walked
from tests.processes import ROOT, in_child
from tests.support.files import files_with
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.embedded.vectors import EdgeVectorStore, address, client, wire
from ww_core.stores.embedded.vectors import store as roles
from ww_core.stores.embedded.vectors.lock import LOCK_FILE
from ww_core.stores.ports import CONTENT, Centroid, Search, VectorStore, Where


class Other:
    """Another process on the same data directory."""

    def __init__(self, data_dir: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.vector_process", str(data_dir), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.role = self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def lines(self) -> list[str]:
        """Everything until the end."""
        assert self.process.stdout is not None
        return self.process.stdout.read().split()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=30)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def other(quick_path: Path) -> Iterator[Callable[..., Other]]:
    started: list[Other] = []

    def start(*arguments: str, data_dir: Path = quick_path) -> Other:
        started.append(Other(data_dir, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def store(quick_path: Path) -> Iterator[EdgeVectorStore]:
    opened = EdgeVectorStore(quick_path / "vectors" / "ww", namespace="ww")
    yield opened
    opened.close()


def names(store: VectorStore) -> set[str]:
    """The episodes that have points."""
    return {episode_id for episode_id, _ in walked(store)}


# -- death and succession


def test_owner_is_killed_while_clients_write_and_search(
    other: Callable[..., Other], store: EdgeVectorStore, quick_path: Path
) -> None:
    owner = other("writer", "o", "100000")
    writers = [other("writer", name, "60") for name in "ab"]
    searcher = other("searcher", "100")
    assert owner.role == "owner"
    assert [p.role for p in (*writers, searcher)] == ["client"] * 3
    acknowledged = {"o": [], "a": [], "b": []}
    for _ in range(3):
        for name, process in zip("oab", (owner, *writers), strict=True):
            acknowledged[name].append(process.line())
    owner.kill()
    acknowledged["o"] += [line for line in owner.lines() if line.isdigit()]
    for name, process in zip("ab", writers, strict=True):
        acknowledged[name] += process.lines()
        assert acknowledged[name][-1] == "done"
        assert acknowledged[name][:-1] == [str(batch) for batch in range(60)]
    assert searcher.lines() == ["hit"] * 100 + ["done"]
    expected = {f"{n}-{batch}-{i}" for n in "oab" for batch in acknowledged[n] if batch != "done" for i in range(10)}
    rest = names(store) - expected
    assert expected <= names(store)
    assert all(name.startswith("o-") for name in rest), "only what the dead owner was writing may be more"


def test_owner_that_closes_hands_over(other: Callable[..., Other], store: EdgeVectorStore, quick_path: Path) -> None:
    store.ensure(MODEL)
    store.upsert([point("first")])
    assert store.owns
    writer = other("writer", "w", "30")
    assert writer.role == "client"
    writer.line()
    store.close()
    assert writer.lines()[-1] == "done"
    assert names(store) == {"first"} | {f"w-{batch}-{i}" for batch in range(30) for i in range(10)}


def test_stopped_owner_is_reported_within_a_bound(
    other: Callable[..., Other], store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(client, "CALL_SECONDS", 1.0)
    owner = other("idle")
    owner.kill(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=str(owner.process.pid)):
        store.count()
    assert time.monotonic() - began < 20
    owner.kill()
    assert store.count() == 0
    assert store.owns


def test_two_stores_of_one_process_share(quick_path: Path) -> None:
    first, second = (EdgeVectorStore(quick_path / "vectors" / "ww", namespace="ww") for _ in range(2))
    first.ensure(MODEL)
    second.upsert([point("a")])
    assert first.count() == 1
    assert (first.owns, second.owns) == (True, False)
    first.close()
    assert second.count() == 1
    assert second.owns
    second.close()


def test_many_threads_of_a_client_at_once(other: Callable[..., Other], store: EdgeVectorStore) -> None:
    other("idle")
    problems: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for batch in range(10):
                store.upsert([point(f"{name}-{batch}", session=str(name))])
                (hits,) = store.search([Search(CONTENT, unit(1.0), Where(sessions=(str(name),)), limit=50)])
                assert {hit.episode_id for hit in hits} == {f"{name}-{b}" for b in range(batch + 1)}
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert store.count() == 80


# -- laziness and forks


def test_opening_touches_nothing(quick_path: Path) -> None:
    store = EdgeVectorStore.open(quick_path / "absent", namespace="ww")
    store.close()
    assert not (quick_path / "absent").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_of_an_owner_becomes_its_client(store: EdgeVectorStore) -> None:
    store.ensure(MODEL)
    store.upsert([point("parent")])

    def child() -> None:
        assert not store.owns
        store.upsert([point("child")])
        assert store.info()["role"] == "client"
        assert store.info()["owner_pid"] == os.getppid()
        store.close()

    assert in_child(child) == 0
    assert store.owns
    assert names(store) == {"parent", "child"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_does_not_keep_the_lock_of_its_parent(store: EdgeVectorStore, other: Callable[..., Other]) -> None:
    store.ensure(MODEL)
    release, held = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(held)
        os.read(release, 1)  # returns when the parent has closed its end
        os._exit(0)
    os.close(release)
    try:
        store.close()
        assert other("idle").role == "owner"
    finally:
        os.close(held)
        os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_child_of_a_client_opens_its_own_connections(other: Callable[..., Other], store: EdgeVectorStore) -> None:
    other("idle")
    store.upsert([point("parent")])

    def child() -> None:
        store.upsert([point("child")])
        store.close()

    assert in_child(child) == 0
    assert names(store) == {"parent", "child"}


# -- strangers


def test_owner_on_another_host_is_named(
    quick_path: Path, store: EdgeVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "FOREIGN_SECONDS", 0.1)
    directory = quick_path / "vectors" / "ww"
    directory.mkdir(parents=True)
    with (directory / LOCK_FILE).open("w") as held:
        json.dump({"host": "elsewhere", "boot": "another-kernel", "pid": 4711}, held)
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match=r"4711 on host elsewhere"):
            store.count()
    assert store.count() == 0, "the name alone, without the lock, keeps nobody out"


def test_owner_of_another_version_is_named(
    store: EdgeVectorStore, other: Callable[..., Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = other("idle")
    monkeypatch.setattr(wire, "PROTOCOL", wire.PROTOCOL + 1)
    with pytest.raises(ConfigurationError, match=f"{owner.process.pid} .*another version"):
        store.count()


def test_nobody_else_can_reach_the_socket(store: EdgeVectorStore, quick_path: Path) -> None:
    store.ensure(MODEL)
    directory = quick_path / "vectors" / "ww"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert directory.parent.stat().st_mode & 0o777 == 0o700
    assert (directory / address.SOCKET_FILE).stat().st_mode & 0o077 == 0


def test_another_user_is_refused(store: EdgeVectorStore, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.ensure(MODEL)
    monkeypatch.setattr(address, "peer_uid", lambda _: os.geteuid() + 1)
    stranger = EdgeVectorStore(quick_path / "vectors" / "ww", namespace="ww")
    with pytest.raises(ConfigurationError, match=f"not of user {os.geteuid() + 1}"):
        stranger.count()


def test_noise_on_the_socket_disturbs_nobody(store: EdgeVectorStore, quick_path: Path) -> None:
    store.ensure(MODEL)
    for noise in (b"\xff\xff\xff\xffrubbish", b"\x00\x00\x00\x02{}", b"\x00\x00\x00\x0f" + b'{"arrays":[[1]]}', b""):
        with address.connect(quick_path / "vectors" / "ww", timeout=10) as connection:
            wire.receive(connection)
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            with pytest.raises(OSError, match=r"ended|reset"):
                wire.receive(connection)
    second = EdgeVectorStore(quick_path / "vectors" / "ww", namespace="ww")
    assert second.count() == 0
    second.close()


def test_path_longer_than_a_socket_address(quick_path: Path, other: Callable[..., Other]) -> None:
    deep = quick_path.joinpath(*("a-rather-long-directory-name",) * 6)
    owner = other("idle", data_dir=deep)
    store = EdgeVectorStore.open(deep, namespace="ww")
    assert (owner.role, store.info()["role"]) == ("owner", "client")
    store.close()


def test_long_path_without_proc(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda path: not str(path).startswith("/proc"))
    monkeypatch.setattr(address.tempfile, "gettempdir", lambda: "/tmp")
    deep = quick_path.joinpath(*("a-rather-long-directory-name",) * 6)
    first, second = (EdgeVectorStore(deep, namespace="ww") for _ in range(2))
    first.ensure(MODEL)
    assert second.info()["role"] == "client"
    second.close()
    first.close()


# -- the disk


def test_directory_that_cannot_be_written_is_one_clear_error(quick_path: Path) -> None:
    (quick_path / "file").write_text("not a directory")
    store = EdgeVectorStore.open(quick_path / "file", namespace="ww")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.count()


def test_damaged_manifest_is_named(store: EdgeVectorStore, quick_path: Path) -> None:
    store.ensure(MODEL)
    store.close()
    (manifest,) = quick_path.glob("vectors/ww/*/collection.json")
    manifest.write_text("{")
    with pytest.raises(ConfigurationError, match=r"collection\.json is damaged"):
        store.count()


def holding(directory: Path, *needles: bytes) -> set[bytes]:
    """Which of the byte strings are in some file below the directory."""
    return {needle for needle in needles if files_with(needle, directory)}


PIECES = b"what late interaction keeps"


def test_nothing_of_a_deleted_episode_is_left_after_a_scrub(store: EdgeVectorStore, quick_path: Path) -> None:
    store.ensure(MODEL)
    rng = np.random.default_rng(3)
    secret = unit(*rng.standard_normal(8))
    kept = unit(*rng.standard_normal(8))
    marked = point("marker-episode", secret, session="marker-session", context={"k": "marker-value"}, pieces=PIECES)
    store.upsert([marked, point("kept-episode", kept), *(point(f"filler-{i}") for i in range(50))])
    store.put_centroids([Centroid("c", "marker-session", "r", unit(1), 0.5)])
    needles = (b"marker-episode", secret.tobytes(), b64encode(PIECES))
    assert holding(quick_path, *needles, b"kept-episode") == {*needles, b"kept-episode"}
    assert holding(quick_path, b"marker-session", b"marker-value") == set(), "these are kept as digests only"
    store.delete(["marker-episode"])
    store.scrub()
    assert holding(quick_path, *needles) == set()
    assert names(store) == {"kept-episode", *(f"filler-{i}" for i in range(50))}
    assert holding(quick_path, b"kept-episode", kept.tobytes()) == {b"kept-episode", kept.tobytes()}
    assert len(list(quick_path.glob("vectors/ww/*/shard-*"))) == 1


def test_writes_during_a_scrub_are_kept(store: EdgeVectorStore) -> None:
    store.ensure(MODEL)
    store.upsert([point(f"old-{i}") for i in range(3000)])
    stop = threading.Event()
    written: list[str] = []
    problems: list[BaseException] = []

    def write() -> None:
        try:
            while not stop.is_set():
                name = f"new-{len(written)}"
                store.upsert([point(name)])
                store.delete([f"old-{len(written)}"])
                written.append(name)
                assert store.search([Search(CONTENT, unit(1.0), Where(episode_ids=(name,)))])[0]
        except BaseException as error:
            problems.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    store.scrub()
    stop.set()
    writer.join()
    assert problems == []
    assert written
    expected = {f"old-{i}" for i in range(len(written), 3000)} | set(written)
    assert names(store) == expected
    store.close()
    assert names(store) == expected
