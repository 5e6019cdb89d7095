"""Kills a process at every durable write of a consolidation, a rollback or a decay, and says what is left each time.

Run as ``python -m tests.integration.killing WORK DIRECTORY``; prints JSON. The process itself opens no store: every
step happens in a child of its own, which is cheap because the modules are loaded before.
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
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tests.integration.consolidating import SESSION, START, World
from tests.integration.observing import observed
from tests.unit.consolidation.blobs import blobs
from ww_core.maintenance.fading import fade
from ww_core.maintenance.points import payload
from ww_core.maintenance.sweep import sweep
from ww_core.models import Vector
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import Dirty

TOPICS = ["nightly backup", "open invoice", "coffee machine", "failing test"]
SMALL = {"consolidation_batch_size": 40, "consolidation_keep_runs": 2}
FADED_BELOW = 0.2
YEARS = timedelta(days=3650)
HOUR = timedelta(hours=1)


class Steps:
    """Counts the commits and the vector updates of this process, and kills it before the one numbered ``fatal``."""

    def __init__(self, fatal: int) -> None:
        self._fatal = fatal
        self.taken = 0
        commit, writable = Database.write, Shard._writable

        @contextmanager
        def write(database: Database) -> Iterator[sqlite3.Connection]:
            with commit(database) as connection:
                yield connection
                self.step()

        Database.write = write
        Shard._writable = lambda shard: _Watched(writable(shard), self.step)

    def step(self) -> None:
        self.taken += 1
        if self.taken == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


class _Watched:
    """A shard whose updates are steps."""

    def __init__(self, shard: Any, step: Callable[[], None]) -> None:
        self._shard, self._step = shard, step

    def update(self, operation: Any) -> Any:
        self._step()
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


def opened(directory: Path) -> World:
    world = World(directory, **SMALL)
    world.now = START + HOUR
    return world


def prepare(directory: Path, work: str) -> None:
    """A session whose first run was published, with more to consolidate, to take back, or to archive."""
    world = opened(directory)
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


def attempt(work: str, directory: Path, fatal: int) -> None:
    world = opened(directory)
    Steps(fatal)
    do(work, world)
    world.close()


def look_and_mend(work: str, directory: Path) -> list[dict[str, str]]:
    """What a kill left, and what the next attempt makes of it when the dead worker's lease has run out."""
    world = opened(directory)
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


def killed_at_every_step(work: str, directory: Path) -> dict[str, Any]:
    """``before`` and ``after`` the work, what each kill ``left``, and what the next attempt ``mended``."""
    start, here, answer = directory / "start", directory / "here", directory / "answer"
    start.mkdir()
    in_child(lambda: prepare(start, work), answer)

    def with_copy(work: Callable[[], Any]) -> tuple[bool, Any]:
        shutil.rmtree(here, ignore_errors=True)
        subprocess.run(["cp", "-r", "--sparse=always", str(start), str(here)], check=True)
        return in_child(work, answer)

    _, (before, after) = with_copy(lambda: look_and_mend(work, here))
    left, mended = [], []
    for fatal in range(1, 1000):
        killed, _ = with_copy(lambda fatal=fatal: attempt(work, here, fatal))
        if not killed:
            return {"before": before, "after": after, "left": left, "mended": mended}
        _, (now, later) = in_child(lambda: look_and_mend(work, here), answer)
        left.append(now)
        mended.append(later)
    raise SystemExit("it never ended")


if __name__ == "__main__":
    json.dump(killed_at_every_step(sys.argv[1], Path(sys.argv[2])), sys.stdout)
