"""Kills a process at every durable write of a consolidation, a rollback or a decay, and says what is left each time.

Run as ``python -m tests.integration.killing WORK DIRECTORY [URI PASSWORD]``; prints JSON. With the last two the graph
is on that Neo4j server, and of equal writes only the first is a step: on embedded stores, which are quick, all are. The
process itself opens no store but to copy one: every step happens in a child of its own, which is cheap because the
modules are loaded before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests.integration.consolidating import SESSION, START, World, new_namespace
from tests.integration.neo4j_graphs import copied
from tests.integration.observing import observed
from tests.unit.consolidation.blobs import blobs
from ww.cli.app import command
from ww_core.maintenance.fading import fade
from ww_core.maintenance.points import payload
from ww_core.maintenance.sweep import sweep
from ww_core.models import Vector
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import Dirty
from ww_core.stores.servers.neo4j.connection import Server

TOPICS = ["nightly backup", "open invoice", "coffee machine", "failing test"]
SMALL = {"consolidation_batch_size": 40, "consolidation_keep_runs": 2}
FADED_BELOW = 0.2
TRIES = 3
"""On a machine that is very busy a lease runs out before a step, which is left to the next worker then."""
YEARS = timedelta(days=3650)
HOUR = timedelta(hours=1)


class Steps:
    """Counts the commits and the vector updates of this process, and kills it before the ``fatal`` one: its kind, and
    how many of that kind come before it."""

    def __init__(self, fatal: tuple[str, int] | None) -> None:
        self._fatal = fatal
        self.kinds: list[str] = []
        """What was written at each step."""
        commit, alone = Database.write, Database.statement
        on_server, writable = Server.write, Shard._writable

        @contextmanager
        def write(database: Database) -> Iterator[sqlite3.Connection]:
            with commit(database) as connection:
                yield connection
                self.step("graph")

        @contextmanager
        def statement(database: Database) -> Iterator[sqlite3.Connection]:
            with alone(database) as connection:
                self.step("graph")
                yield connection

        def write_to_server(server: Server, work: Callable[[Any], Any], **how: bool) -> Any:
            def stepping(transaction: Any) -> Any:
                answer = work(transaction)
                if not work.__qualname__.startswith("Runs.extend_run"):  # that is a matter of time
                    self.step(work.__qualname__)
                return answer

            return on_server(server, stepping, **how)

        Database.write = write
        Database.statement = statement
        Server.write = write_to_server
        Shard._writable = lambda shard: _Watched(writable(shard), self.step)

    def step(self, kind: str) -> None:
        if (kind, self.kinds.count(kind)) == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.kinds.append(kind)


class _Watched:
    """A shard whose updates are steps."""

    def __init__(self, shard: Any, step: Callable[[str], None]) -> None:
        self._shard, self._step = shard, step

    def update(self, operation: Any) -> Any:
        self._step("vectors")
        return self._shard.update(operation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)


def rows_and_texts() -> tuple[Vector, list[str]]:
    """Four topics; the last fifth brings copies and a topic of its own."""
    rows, truth = blobs(4, 30)
    order = np.argsort(truth == 3, kind="stable")  # the last topic comes last
    rows, truth = rows[order], truth[order]
    texts = [f"that is the {TOPICS[label]} {i}" for i, label in enumerate(truth)]
    return np.vstack([rows, rows[:3]]), [*texts, *texts[:3]]


@dataclass(frozen=True)
class Place:
    """Where the stores of a world are: a directory, and the namespace of a server where the graph is on one."""

    directory: Path
    server: tuple[str, str] | None = None
    namespace: str = ""

    def open(self) -> World:
        world = World(self.directory, neo4j=self.server, namespace=self.namespace, **SMALL)
        world.now = START + HOUR
        return world

    def copy(self, directory: Path) -> Place:
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", str(self.directory), str(directory)], check=True)
        if self.server is None:
            return Place(directory)
        return Place(directory, self.server, copied(" ".join([*self.server, self.namespace]), new_namespace()))


def prepare(place: Place, work: str) -> None:
    """A session whose first run was published, with more to consolidate, to take back, or to archive."""
    world = place.open()
    rows, texts = rows_and_texts()
    world.store(texts[:80], rows[:80])
    world.consolidate()
    world.store(texts[80:], rows[80:])
    if work == "run":
        world.graph.request_run(SESSION)
    else:
        world.consolidate()
    world.close()


def do(work: str, world: World) -> None:
    """The work, from wherever an earlier attempt was cut off."""
    match work:
        case "run":
            for run in world.graph.requested_runs(10):
                world.consolidator.run(run.run_id, token="t")
        case "rollback":
            latest = world.graph.runs(SESSION, limit=1)[0]
            if latest.status != "rolled_back":
                world.consolidator.rollback(latest.run_id)
        case "decay":
            fade(world.graph, threshold=FADED_BELOW, now=START + YEARS)


def catch_up(world: World) -> None:
    """What workers do within the next minutes; contexts would need a model."""
    world.now += HOUR
    sweep(world.graph, world.vectors, max_attempts=3, clock=lambda: world.now)
    while rows := world.graph.dirty(Dirty.PAYLOAD, 1000):
        world.vectors.change([payload(row.episode) for row in rows])
        world.graph.clear_dirty(Dirty.PAYLOAD, {row.episode.episode_id: row.version for row in rows})


def look(world: World) -> dict[str, str]:
    """What readers see, at the moment of every other look."""
    at, world.now = world.now, START + HOUR
    seen = observed(world, rows_and_texts()[0][::25])
    world.now = at
    return seen


def attempt(work: str, place: Place, fatal: tuple[str, int] | None = None) -> list[str]:
    """The kinds of all steps, where none of them was fatal."""
    world = place.open()
    steps = Steps(fatal)
    do(work, world)
    world.close()
    return steps.kinds


def look_and_mend(work: str, place: Place) -> list[dict[str, str]]:
    """What a kill left, and what the next attempt makes of it when the dead worker's lease has run out."""
    world = place.open()
    left = look(world)
    world.now += HOUR
    do(work, world)
    catch_up(world)
    mended = look(world)
    world.close()
    return [left, mended]


def in_child(work: Callable[[], Any], answer: Path) -> tuple[bool, Any]:
    """Whether a child of this process was killed while it did the work, and its answer."""
    answer.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        code = 1
        try:
            answer.write_text(json.dumps(work()))
            code = 0
        except BaseException:  # the child must not go on as its parent
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"a child failed: {work}")
    killed = os.WIFSIGNALED(status)
    return killed, None if killed else json.loads(answer.read_text())


def killed_at_every_step(work: str, directory: Path, server: tuple[str, str] | None) -> dict[str, Any]:
    """``before`` and ``after`` the work, what each kill ``left``, and what the next attempt ``mended``."""
    start = Place(directory / "start", server, new_namespace())
    here, answer = directory / "here", directory / "answer"
    start.directory.mkdir()

    def child(work: Callable[[], Any]) -> Any:
        killed, found = in_child(work, answer)
        assert not killed, "nobody was to kill it"
        return found

    def killed_at(fatal: tuple[str, int]) -> Place:
        for _ in range(TRIES):
            place = start.copy(here)
            killed, _ = in_child(lambda place=place: attempt(work, place, fatal), answer)
            if killed:
                return place
        raise AssertionError(f"{fatal} was no step in {TRIES} tries")

    child(lambda: prepare(start, work))
    whole = start.copy(here)
    before, after = child(lambda: look_and_mend(work, whole))
    again = start.copy(here)
    kinds = child(lambda: attempt(work, again))
    left, mended = [], []
    for number, kind in enumerate(kinds):
        if server is not None and kind in kinds[:number]:
            continue
        place = killed_at((kind, kinds[:number].count(kind)))
        now, later = child(lambda place=place: look_and_mend(work, place))
        left.append(now)
        mended.append(later)
    return {"before": before, "after": after, "kinds": kinds, "left": left, "mended": mended}


if __name__ == "__main__":
    command()  # loads the modules of ``ww clusters``, as everything else is loaded
    address = (sys.argv[3], sys.argv[4]) if len(sys.argv) > 3 else None
    json.dump(killed_at_every_step(sys.argv[1], Path(sys.argv[2]), address), sys.stdout)
