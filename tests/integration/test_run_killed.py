"""Consolidations that are killed, overtaken or late around the moment when they are published."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.consolidating import SESSION, World
from tests.processes import ROOT, clean_environment
from tests.unit.consolidation.blobs import blobs
from ww_core.consolidation.progress import Watch
from ww_core.consolidation.selection import New
from ww_core.consolidation.sink import Stage
from ww_core.errors import Busy
from ww_core.maintenance.erase import erase
from ww_core.maintenance.points import payload
from ww_core.maintenance.sweep import repair, sweep
from ww_core.models import Run
from ww_core.stores.ports import Dirty, Moved, Where
from ww_core.stores.routing import Cells, settle_abandoned

WORKER = """
import sys
from pathlib import Path
import numpy as np
from tests.integration.consolidating import World
from tests.unit.consolidation.blobs import blobs

world = World(Path(sys.argv[1]))
rows, _ = blobs(3, 20)
world.store([f"text {i}" for i in range(len(rows))], rows)

def publish(run, *, token, lease_seconds):
    print(run.run_id, flush=True)
    sys.stdin.read()

world.graph.publish = publish
world.consolidate()
"""


@contextmanager
def about_to_publish(directory: Path) -> Iterator[str]:
    """The run of a worker that stands there, and is killed in the end."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory)],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_what_it_wrote_of_a_session_that_was_erased_meanwhile_is_swept_away(tmp_path: Path) -> None:
    with about_to_publish(tmp_path):
        world = World(tmp_path)
        (ours,) = set(world.vectors.walk_centroids()[0])
        assert sweep(world.graph, world.vectors, max_attempts=3).orphans == 0, "a run under way keeps its centroids"
        # the erasure saw no centroids yet: the worker writes them just behind it
        centroids = world.vectors.centroids(SESSION, ours)
        erase(world.graph, world.vectors, session_id=SESSION)
        world.vectors.put_centroids(centroids)
    assert world.vectors.walk_centroids()[0] == [ours] * len(centroids)
    assert sweep(world.graph, world.vectors, max_attempts=3).orphans == 1
    assert world.vectors.walk_centroids() == ([], None)
    world.vectors.put_centroids(centroids)
    assert repair(world.graph, world.vectors) == (0, 1)
    assert world.vectors.walk_centroids() == ([], None)
    world.close()


def test_whoever_takes_it_over_starts_with_no_centroids_of_its(tmp_path: Path) -> None:
    with about_to_publish(tmp_path) as run_id:
        world = World(tmp_path)
        (killed,) = set(world.vectors.walk_centroids()[0])
        assert killed == world.graph.run(run_id).attempt
    world.graph.expire_leases(max_attempts=3)
    run = world.consolidator.run(run_id, token=uuid4().hex)
    assert run.status == "done"
    assert run.attempt != killed
    assert set(world.vectors.walk_centroids()[0]) == {run.attempt}
    assert routed(world) == sorted(c.cluster_id for c in run.clusters)
    world.close()


@pytest.mark.parametrize("late", ["put_centroids", "publish"])
def test_a_worker_that_comes_too_late_leaves_alone_what_was_published_meanwhile(
    late: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, truth = blobs(4, 20)
    ids = world.store([f"text {i}" for i in range(len(rows))], rows)
    requested = world.graph.request_run(SESSION)
    store: Any = world.vectors if late == "put_centroids" else world.graph
    go_on = getattr(store, late)
    published: list[Run] = []

    def overtaken(*arguments: Any, **named: Any) -> Any:
        monkeypatch.undo()
        erase(world.graph, world.vectors, episode_ids=[name for name, of in zip(ids, truth, strict=True) if of == 0])
        published.append(world.consolidator.run(requested.run_id, token="quick"))
        return go_on(*arguments, **named)

    monkeypatch.setattr(store, late, overtaken)
    with pytest.raises(Busy):
        world.consolidator.run(requested.run_id, token="late")
    (run,) = published
    assert run.status == "done"
    assert routed(world) == sorted(c.cluster_id for c in run.clusters)
    assert world.graph.facts("consolidation.cells:") == {}
    assert set(world.vectors.walk_centroids()[0]) == {run.attempt}


def test_the_centroids_of_an_attempt_that_died_are_swept_away_and_others_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = blobs(3, 20)
    world.store([f"text {i}" for i in range(len(rows))], rows)
    run = world.consolidate()
    dead = world.graph.start_run(world.graph.request_run(SESSION).run_id, token="t", lease_seconds=1)
    known = world.vectors.centroids(SESSION, run.attempt)
    world.vectors.put_centroids([replace(c, attempt=dead.attempt) for c in known])
    assert sweep(world.graph, world.vectors, max_attempts=3).orphans == 0, "it may still be published"
    world.now += timedelta(seconds=2)
    world.graph.start_run(dead.run_id, token="u", lease_seconds=60)
    # a page of attempts is one question, however many they are
    asked: list[list[str]] = []
    live = world.graph.live_attempts

    def asking(names: Sequence[str]) -> set[str]:
        asked.append(list(names))
        return live(names)

    monkeypatch.setattr(world.graph, "live_attempts", asking)
    monkeypatch.setattr(world.graph, "run", None)
    assert sweep(world.graph, world.vectors, max_attempts=3).orphans == 1
    monkeypatch.undo()
    assert asked == [sorted([run.attempt, dead.attempt])]
    assert set(world.vectors.walk_centroids()[0]) == {run.attempt}


def test_a_run_waits_for_the_cells_that_another_left_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, _ = blobs(3, 20)
    world.store([f"text {i}" for i in range(len(rows))], rows)

    def killed(run: Run, new: New, stage: Stage, watch: Watch, token: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(world.consolidator, "_tidy", killed)
    with pytest.raises(KeyboardInterrupt):
        world.consolidate()
    monkeypatch.undo()
    assert sum(placed(world).values()) == 0
    world.store(["something else"], rows[:1], session="other")
    for _ in range(60):  # what ended lately says nothing of what was left over
        world.graph.cancel_run(world.graph.request_run("other").run_id)
    world.now += timedelta(minutes=10)
    moved, refused = world.graph.moved, []

    def meanwhile(run_id: str) -> list[Moved]:
        with pytest.raises(Busy) as busy:
            world.consolidate()
        refused.append(busy)
        return moved(run_id)

    monkeypatch.setattr(world.graph, "moved", meanwhile)
    assert settle_abandoned(world.graph, world.vectors, world.now) == 1
    monkeypatch.undo()
    assert len(refused) == 1
    run = world.graph.current_run(SESSION)
    assert run is not None
    assert placed(world) == {c.cluster_id: c.size for c in run.clusters}
    assert world.graph.facts("consolidation.cells:") == {}
    assert settle_abandoned(world.graph, world.vectors, world.now) == 0
    assert world.consolidate().considered == 0, "and then it runs"


def test_cells_written_when_the_session_was_lost_already_are_written_anew(world: World) -> None:
    rows, _ = blobs(3, 20)
    ids = world.store([f"text {i}" for i in range(len(rows))], rows)
    world.consolidate()
    right = placed(world)
    assert world.graph.dirty(Dirty.PAYLOAD, 100) == []
    answers = iter([True, False])
    stale = Cells()
    for name in ids:
        stale.put(name, ("stale",))
    assert not stale.write(world.graph, world.vectors, lambda: next(answers))
    assert placed(world) != right
    changed = [row.episode for row in world.graph.dirty(Dirty.PAYLOAD, 100)]
    assert sorted(one.episode_id for one in changed) == ids
    world.vectors.change([payload(one) for one in changed])
    assert placed(world) == right


def routed(world: World) -> list[str]:
    """The clusters that a search of the session can be led to."""
    attempt = world.graph.current_attempts([SESSION])[SESSION]
    return [c.cluster_id for c in world.vectors.centroids(SESSION, attempt)]


def placed(world: World) -> dict[str, int]:
    """Points in the cell of each visible cluster."""
    run = world.graph.current_run(SESSION)
    assert run is not None
    return {c.cluster_id: world.vectors.count(Where(cells=(c.cluster_id,))) for c in run.clusters}
