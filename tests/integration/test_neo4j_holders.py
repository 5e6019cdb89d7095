"""What a process of this machine had leased on a Neo4j server is free when it dies; of others only time says so."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.contract.graphs import Clock, embed, episodes, ids, neo4j_settings
from tests.holding import Hold, kill, let_nobody_ring, starter
from tests.processes import RedisServer, Worker, until
from ww.memory.episodic import EpisodicMemory
from ww_core.errors import Busy
from ww_core.stores.ports import Queue
from ww_core.stores.servers.neo4j import Neo4jGraphStore

HOUR = 3600.0
HOLDER = f"""
import os, sys
from pathlib import Path
from tests.contract.graphs import neo4j_settings
from ww_core.stores.servers.neo4j import Neo4jGraphStore
graph = Neo4jGraphStore(neo4j_settings(sys.argv[1], data_dir=Path(sys.argv[2])))
if sys.argv[3] == "claim":
    assert len(graph.claim(100, token="t", lease_seconds={HOUR})) == 8
else:
    run = graph.start_run(graph.request_run("s").run_id, token="t", lease_seconds={HOUR})
    if sys.argv[3] != "run":
        graph.publish(run, token="t", lease_seconds={HOUR} if sys.argv[3] == "publish" else 0)
    if sys.argv[3] == "hold":
        assert graph.hold_run(run.run_id, token="t", lease_seconds={HOUR})
if sys.argv[4:] == ["fork"] and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def graph(location: str, tmp_path: Path) -> Iterator[Neo4jGraphStore]:
    opened = Neo4jGraphStore(neo4j_settings(location, data_dir=tmp_path / "data"))
    opened.add(episodes(8))
    yield opened
    opened.close()


@pytest.fixture
def hold(location: str, tmp_path: Path) -> Iterator[Hold]:
    """Starts a process that leases for an hour and then waits."""
    with ExitStack() as ends:
        yield starter(HOLDER, location, str(tmp_path / "data"), ends=ends)


def _files(directory: Path) -> list[Path]:
    return [file for folder in directory.glob("neo4j-*-holders") for file in folder.iterdir()]


def test_rows_of_a_killed_process_are_free_at_once(graph: Neo4jGraphStore, hold: Hold, tmp_path: Path) -> None:
    holder = hold("claim")
    assert graph.expire_leases(max_attempts=3) == 0, "it lives"
    assert graph.claim(100, token="u", lease_seconds=60) == []
    assert len(_files(tmp_path / "data")) == 2
    kill(holder)
    assert graph.expire_leases(max_attempts=3) == 8
    assert len(_files(tmp_path / "data")) == 1, "nothing is left of the dead process"
    # as after any lost lease: in halves, so that a text that kills is found
    assert len(graph.claim(100, token="u", lease_seconds=60)) == 4
    assert graph.mark_embedded("t", dict.fromkeys(ids(episodes(8)), 1)) == set(), "its token is void"
    graph.close()
    assert _files(tmp_path / "data") == []


def test_a_stopped_process_keeps_its_rows_until_their_time_is_over(
    graph: Neo4jGraphStore, hold: Hold, location: str, tmp_path: Path
) -> None:
    holder = hold("claim")
    holder.send_signal(signal.SIGSTOP)
    until(lambda: psutil.Process(holder.pid).status() == psutil.STATUS_STOPPED, what="it is stopped")
    assert graph.expire_leases(max_attempts=3) == 0
    clock = Clock()
    clock.now = clock.now.replace(year=2100)
    later = Neo4jGraphStore(neo4j_settings(location, data_dir=tmp_path / "data"), clock=clock)
    assert later.expire_leases(max_attempts=3) == 8
    later.close()


def test_a_child_that_outlives_its_parent_holds_nothing_for_it(graph: Neo4jGraphStore, hold: Hold) -> None:
    holder = hold("claim", "fork")
    kill(holder)
    # the child may be so young that it has not let go of what it inherited
    until(lambda: graph.expire_leases(max_attempts=3) == 8, what="the leases are free")


def test_nobody_judges_processes_of_another_directory(
    graph: Neo4jGraphStore, hold: Hold, location: str, tmp_path: Path
) -> None:
    """As on another machine; nor those of a directory that was made anew, or is a copy."""
    holder = hold("claim")
    data = tmp_path / "data"
    shutil.copytree(data, tmp_path / "copy")
    kill(holder)
    for other in ("elsewhere", "copy"):
        stranger = Neo4jGraphStore(neo4j_settings(location, data_dir=tmp_path / other))
        assert stranger.expire_leases(max_attempts=3) == 0
        stranger.close()
    (lock,) = _files(data)
    lock.unlink()
    assert graph.expire_leases(max_attempts=3) == 0, "who knows how it ended"


def test_a_run_of_a_killed_process_is_taken_over_at_once(graph: Neo4jGraphStore, hold: Hold) -> None:
    embed(graph)
    holder = hold("run")
    (run,) = graph.running_runs()
    graph.expire_leases(max_attempts=3)
    with pytest.raises(Busy):
        graph.start_run(run.run_id, token="u", lease_seconds=60)
    kill(holder)
    graph.expire_leases(max_attempts=3)
    assert [waiting.run_id for waiting in graph.requested_runs(5)] == [run.run_id]
    assert graph.start_run(run.run_id, token="u", lease_seconds=60).status == "running"


@pytest.mark.parametrize("how", ["publish", "hold"])
def test_a_session_that_a_killed_process_tidied_up_is_free_at_once(
    graph: Neo4jGraphStore, hold: Hold, how: str
) -> None:
    embed(graph)
    holder = hold(how)
    (published,) = graph.runs("s")
    graph.expire_leases(max_attempts=3)
    assert not graph.hold_run(published.run_id, token="u", lease_seconds=60)
    kill(holder)
    graph.expire_leases(max_attempts=3)
    assert graph.hold_run(published.run_id, token="u", lease_seconds=60)
    graph.release_run(published.run_id, token="u")
    assert graph.running_runs() == graph.requested_runs(5) == []


def test_what_a_killed_child_held_is_embedded_by_the_next_one(
    neo4j_server: tuple[str, str], redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    uri, password = neo4j_server
    namespace = f"t{uuid4().hex[:12]}"
    given = {"T4DM_NEO4J_URI": uri, "T4DM_NEO4J_PASSWORD": password, "T4DM_NAMESPACE": namespace}
    worker = start_worker(tmp_path / "data", "-c", "1", "-Q", Queue.EMBED.value, T4DM_EMBEDDING_LEASE="3600", **given)
    settings = {"redis_url": redis_server.url, "neo4j_uri": uri, "neo4j_password": password, "namespace": namespace}
    with EpisodicMemory("s", data_dir=tmp_path / "data", **settings) as memory:
        memory.sync.store_batch([f"{i} " + "some longer text about the sea. " * 20 for i in range(100)])
        until(lambda: memory.sync.counts().embedded > 0, what="some are embedded")
        with redis_server.client() as client:
            let_nobody_ring(client, namespace)
        (child,) = worker.children()
        child.kill()
        counts = memory.sync.counts()
        assert (counts.leased > 0, counts.embedded < 100) == (True, True)
        until(lambda: memory.sync.counts().embedded == 100, what="all embedded")
        assert memory.sync.verify().ok
