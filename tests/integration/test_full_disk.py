"""A disk that is full: a clear error, nothing acknowledged lost, and going on once there is room."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import Cli
from tests.processes import ROOT, clean_environment
from tests.support.neo4j_fixture import skip_without_neo4j
from ww.cli import opening
from ww_core.stores.embedded.vectors import room

FILLING = """
import json, os, sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from ww.errors import FlushTimeout, StoreUnavailable, WorldWeaverError
from ww_core.maintenance.verify import verify

disk = Path(sys.argv[1])
filler = disk / "filler"

def fill(leave):
    file = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for step in (1 << 20, 1 << 9):  # others write too: there may be less than there just was
        with suppress(OSError):
            while (left := os.statvfs(disk)).f_bavail * left.f_frsize >= leave + step or not leave:
                os.write(file, bytes(step))
    os.close(file)

def refused(call):
    try:
        call()
    except WorldWeaverError as error:
        return f"{type(error).__name__}: {error}"
    return ""

def look(memory, kept):
    # the acknowledged that are gone, the embedded beyond those, and whether all is in its place
    graph, vectors = memory.core.deployment.graph, memory.core.deployment.vectors
    lost, more = len(set(kept) - set(graph.get(kept))), memory.sync.counts().embedded - len(kept)
    return {"lost": lost, "embedded": more, "ok": verify(graph, vectors).ok}
"""
EMBEDDED = f"""{FILLING}
from ww.memory.episodic import EpisodicMemory

said = {{}}
with EpisodicMemory(data_dir=disk / "data", session_id="s") as memory:
    kept = [memory.sync.store(f"the valve of tank {{i}} was changed").episode_id for i in range(20)]
    memory.sync.flush(timeout=80)
    fill(leave=20_000_000)
    kept.append(memory.sync.store("there is room for a row, not for its vectors").episode_id)
    while "no space" not in said.get("flush", ""):  # it says so as soon as it was tried
        said["flush"] = refused(lambda: memory.sync.flush(timeout=0.5))
    fill(leave=0)
    while not (told := refused(lambda: kept.append(memory.sync.store("x" * 9000).episode_id))):
        pass
    said["store"] = told
    said["recalled"] = len(memory.sync.recall("which valve was changed"))
    filler.unlink()
    kept.append(memory.sync.store("there is room again").episode_id)
    memory.sync.flush(timeout=80)
    said |= look(memory, kept)
print(json.dumps(said))
"""
CLOSING = f"""{FILLING}
from ww.memory.episodic import EpisodicMemory

said = {{}}
memory = EpisodicMemory(data_dir=disk / "data", session_id="s")
kept = [memory.sync.store(f"the valve of tank {{i}} was changed").episode_id for i in range(20)]
memory.sync.flush(timeout=80)
kept.append(memory.sync.store("this one is perhaps not embedded yet").episode_id)
fill(leave=0)
said["recalled"] = len(memory.sync.recall("which valve was changed"))
said["closing"] = refused(memory.sync.close)
filler.unlink()
with EpisodicMemory(data_dir=disk / "data", session_id="s") as again:
    again.sync.flush(timeout=80)
    said |= look(again, kept)
print(json.dumps(said))
"""
SMALL = f"""{FILLING}
from ww.memory.episodic import EpisodicMemory

said = {{}}
for n, leave in enumerate((None, None, 20_000_000)):
    if leave:
        fill(leave=leave)
    with EpisodicMemory(data_dir=disk / "data", session_id="s") as memory:
        if not leave:
            memory.sync.store(f"the valve of tank {{n}} was changed")
            memory.sync.flush(timeout=80)
        said[n] = len(memory.sync.recall("which valve was changed"))
print(json.dumps(said))
"""
NEO4J = f"""{FILLING}
from tests.contract.graphs import episodes, neo4j_settings
from tests.support.neo4j_server import Neo4jServer
from ww_core.stores.servers.neo4j import Neo4jGraphStore

server = Neo4jServer(disk / "neo4j", brief=True)
server.start()
graph = Neo4jGraphStore(neo4j_settings(f"{{server.uri}} {{server.password}} full"))
said = {{}}
graph.add(episodes(100))
fill(leave=0)
start = 100
while not (told := refused(lambda: graph.add([replace(e, content="x" * 20_000) for e in episodes(50, start=start)]))):
    start += 50
said["first"], said["then"] = told, refused(lambda: graph.add(episodes(1, start=start + 50)))
filler.unlink()
server.kill()
server.start()
graph.add(episodes(1, start=start + 50))
said["lost"] = start - len(graph.get([e.episode_id for e in episodes(start)]))
said["balanced"] = graph.counts().balanced
graph.close()
server.kill()
print(json.dumps(said))
"""


def on_a_small_disk(script: str, directory: Path, megabytes: int) -> dict[str, Any]:
    """What the script prints, with a disk of that size in a mount namespace of its own; skips where none can be had."""
    mount = f"mount -t tmpfs -o size={megabytes}m none {directory}"
    trial = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"no disk can be mounted here: {trial.stderr.strip()}")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1" {directory}', sys.executable, script],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.timeout(300)
def test_the_data_directory(tmp_path: Path) -> None:
    said = on_a_small_disk(EMBEDDED, tmp_path, 300)
    assert said["flush"].startswith("FlushTimeout")
    assert "no space left" in said["flush"], "it says why nothing is embedded"
    assert said["store"].startswith("StoreUnavailable: no space left for ")
    assert "free some disk space" in said["store"]
    assert said["recalled"] > 0, "reading goes on"
    assert (said["lost"], said["embedded"], said["ok"]) == (0, 0, True)


@pytest.mark.timeout(300)
def test_a_small_memory_opens_on_a_small_disk(tmp_path: Path) -> None:
    """Its files have 366 MB of holes, of which opening fills 124 in a file system in memory."""
    assert on_a_small_disk(SMALL, tmp_path, 250) == {"0": 1, "1": 2, "2": 2}


@pytest.mark.timeout(300)
def test_closing_neither_fails_nor_loses_anything(tmp_path: Path) -> None:
    """The engine writes as it closes, into files mapped to memory: on a full disk the kernel ends the process."""
    said = on_a_small_disk(CLOSING, tmp_path, 600)
    assert said["recalled"] > 0
    assert (said["closing"], said["lost"], said["embedded"], said["ok"]) == ("", 0, 0, True)


@pytest.fixture
def full(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A command line whose disk has room for rows, not for vectors, with one episode embedded and one pending."""
    cli("store", "the valve of the tank was changed")
    monkeypatch.setattr(room, "free", lambda directory: 20 * room.MEGABYTE)
    cli("store", "the pump was oiled", "--no-wait")
    monkeypatch.setattr(opening, "FULL_SECONDS", 2.0)
    return cli


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [["consolidate"], ["store", "the seal leaks"], ["flush", "--timeout", "50"]])
def test_a_command_that_waits_says_why_and_gives_up_soon(full: Cli, command: list[str]) -> None:
    full.text(*command)
    told, ended = full.err.splitlines()
    assert told.startswith("nothing can be embedded now: StoreUnavailable: no space left on the disk")
    assert "are still pending and none was embedded for 2 seconds (they are kept; StoreUnavailable: " in ended
    assert full.code == 1


@pytest.mark.timeout(60)
def test_a_recall_says_why_and_goes_on(full: Cli) -> None:
    found = full("recall", "which valve was changed")
    assert [one["content"] for one in found["results"]][:1] == ["the valve of the tank was changed"]
    assert [line.partition(":")[0] for line in full.err.splitlines()] == [
        "nothing can be embedded now",
        "some episodes are still pending and cannot be found by meaning yet; `ww flush` waits for them",
    ]


@pytest.mark.full
@pytest.mark.timeout(300)
def test_the_disk_of_a_neo4j_server(tmp_path: Path) -> None:
    skip_without_neo4j()
    said = on_a_small_disk(NEO4J, tmp_path, 900)
    assert "is its disk full?" in said["first"]
    assert "free space on its disk, then restart it" in said["then"]
    assert (said["lost"], said["balanced"]) == (0, True)
