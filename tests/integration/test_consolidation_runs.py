"""A consolidation run is visible whole or not at all: due, shown beforehand, stopped, taken over and taken back."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from tests.integration.consolidating import SESSION, World, texts
from tests.unit.consolidation.blobs import blobs
from ww_core.errors import Busy, NotFound
from ww_core.maintenance.erase import erase
from ww_core.models import Run
from ww_core.stores.points import digest
from ww_core.stores.ports import Where


def test_a_second_run_with_nothing_new_does_nothing(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    first = world.consolidate()
    again = world.consolidate()
    assert (again.status, again.considered) == ("done", 0)
    current = world.graph.current_run(SESSION)
    assert current is not None
    assert current.run_id == first.run_id


def test_what_readers_search_by_is_there_before_the_run_is_visible(world: World) -> None:
    rows, truth = blobs(3, 20)
    ids = world.store(texts(truth), rows)
    run = world.consolidate()
    centroids = {c.cluster_id: c for c in world.vectors.centroids(SESSION, run.attempt)}
    assert set(centroids) == {c.cluster_id for c in run.clusters}
    for cluster in run.clusters:
        members = rows[[p == cluster.cluster_id for p in world.places(ids)]]
        mean = members.mean(axis=0)
        np.testing.assert_allclose(centroids[cluster.cluster_id].vector, mean / np.linalg.norm(mean), atol=1e-3)
        routed = world.vectors.count(Where(sessions=(SESSION,), cells=(cluster.cluster_id,)))
        assert routed >= cluster.size
    cells = tuple(c.cluster_id for c in run.clusters)
    assert world.vectors.count(Where(sessions=(SESSION,), cells=cells)) == 60


def test_the_same_input_and_seed_give_the_same_run(tmp_path: Path) -> None:
    rows, truth = blobs(5, 60, noise=30, spread=0.5)
    runs = []
    for name in ("one", "other"):
        made = World(tmp_path / name, consolidation_max_samples=50)
        ids = made.store(texts(truth), rows)
        run = made.consolidate()
        runs.append(([(c.cluster_id, c.label, c.size, c.exemplars) for c in run.clusters], made.places(ids)))
        made.close()
    assert runs[0] == runs[1]


def test_a_dry_run_says_what_would_happen_and_writes_nothing(world: World) -> None:
    rows, truth = blobs(3, 20)
    ids = world.store(texts(truth), rows)
    shown = world.consolidator.preview(SESSION)
    assert shown.status == "dry_run"
    assert len(shown.clusters) == 3
    assert world.graph.current_run(SESSION) is None
    assert world.places(ids) == [None] * 60
    assert world.vectors.count(Where(cells=tuple(c.cluster_id for c in shown.clusters))) == 0
    assert world.graph.runs(SESSION) == []
    done = world.consolidate()
    assert [(c.cluster_id, c.label, c.size) for c in done.clusters] == [
        (c.cluster_id, c.label, c.size) for c in shown.clusters
    ]


def test_a_stopped_run_is_cancelled_and_changes_nothing(world: World) -> None:
    rows, truth = blobs(3, 20)
    ids = world.store(texts(truth), rows)
    requested = world.graph.request_run(SESSION)
    run = world.consolidator.run(requested.run_id, token="t", should_stop=lambda: True)
    assert run.status == "cancelled"
    assert world.graph.current_run(SESSION) is None
    assert world.places(ids) == [None] * 60
    assert world.consolidate().status == "done"


def test_a_run_over_its_time_limit_fails_and_says_so(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    brief = world.with_settings(world.settings.replace(consolidation_time_limit=1e-9))
    run = brief.run(world.graph.request_run(SESSION).run_id, token="t")
    assert run.status == "failed"
    assert "consolidation_time_limit" in (run.error or "")
    assert world.graph.current_run(SESSION) is None


def test_two_runs_of_one_session_at_once_are_refused(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    first = world.graph.request_run(SESSION)
    world.graph.start_run(first.run_id, token="other", lease_seconds=60)
    with pytest.raises(Busy):
        world.consolidator.run(world.graph.request_run(SESSION).run_id, token="t")


def test_a_run_that_was_taken_over_publishes_nothing(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    requested = world.graph.request_run(SESSION)
    taken = []

    def take_over(progress: float) -> None:
        if progress > 0.3 and not taken:
            world.now += timedelta(hours=1)
            taken.append(world.graph.start_run(requested.run_id, token="other", lease_seconds=60))

    with pytest.raises(Busy):
        world.consolidator.run(requested.run_id, token="t", on_progress=take_over)
    assert world.graph.current_run(SESSION) is None
    assert world.graph.run(requested.run_id).status == "running"


def test_nothing_of_a_run_stays_where_its_session_is_erased_behind_its_publication(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    requested = world.graph.request_run(SESSION)
    publish = world.graph.publish

    def then_erase(run: Run, *, token: str, lease_seconds: float) -> bool:
        done = publish(run, token=token, lease_seconds=lease_seconds)
        erase(world.graph, world.vectors, session_id=SESSION)
        return done

    monkeypatch.setattr(world.graph, "publish", then_erase)
    world.consolidator.run(requested.run_id, token="t")
    with sqlite3.connect(world.settings.data_dir / "graph.sqlite3") as record:
        facts = [key for (key,) in record.execute("SELECT key FROM fact")]
    record.close()
    assert not [key for key in facts if digest(SESSION) in key]
    assert world.vectors.walk_centroids() == ([], None)


def test_due_sessions_are_those_with_something_new_longest_waiting_first(world: World) -> None:
    rows, truth = blobs(2, 10)
    world.store(texts(truth), rows, session="b")
    world.now += timedelta(minutes=1)
    world.store(texts(truth), rows, session="a")
    assert world.consolidator.due(world.now) == ["b", "a"]
    world.consolidate("b")
    assert world.consolidator.due(world.now) == ["a"]
    world.store(texts(truth), rows, session="b")
    assert world.consolidator.due(world.now) == ["a"], "the interval since b's last run has not passed"
    later = world.now + timedelta(seconds=world.settings.consolidation_interval)
    assert set(world.consolidator.due(later)) == {"a", "b"}


def test_old_centroids_are_kept_for_as_long_as_their_runs(world: World) -> None:
    rows, truth = blobs(3, 40)
    keeper = world.with_settings(world.settings.replace(consolidation_keep_runs=2))
    runs = []
    for part in np.array_split(np.arange(120), 4):
        world.store(texts(truth[part]), rows[part])
        runs.append(keeper.run(world.graph.request_run(SESSION).run_id, token=uuid4().hex))
    kept = [bool(world.vectors.centroids(SESSION, run.attempt)) for run in runs]
    assert kept == [False, False, True, True]


def test_an_unknown_run_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        world.consolidator.run("nobody", token="t")


def test_a_rollback_brings_the_state_before_the_run_back(world: World) -> None:
    rows, truth = blobs(5, 30)
    first = world.store(texts(truth[:90]), rows[:90])
    before = world.consolidate()
    shown = world.graph.current_run(SESSION)
    places = world.places(first)
    assert shown is not None
    routed = {c.cluster_id: world.vectors.count(Where(cells=(c.cluster_id,))) for c in shown.clusters}
    later = world.store(texts(truth[90:]), rows[90:])
    run = world.consolidate()
    assert world.consolidator.rollback(run.run_id).status == "rolled_back"
    assert world.graph.current_run(SESSION) == shown
    assert world.places([*first, *later]) == [*places, *[None] * 60]
    assert {c.cluster_id: world.vectors.count(Where(cells=(c.cluster_id,))) for c in shown.clusters} == routed
    assert world.vectors.count(Where(cells=("nowhere",), uncelled=True)) == 60
    assert world.vectors.centroids(SESSION, before.attempt)
    again = world.consolidate()
    assert again.considered == 60
    assert [(c.cluster_id, c.label, c.size) for c in again.clusters] != []


def test_an_episode_without_points_waits_for_them_and_nothing_is_published(world: World) -> None:
    rows, truth = blobs(3, 20)
    ids = world.store(texts(truth), rows)
    world.vectors.delete(ids)
    run = world.consolidate()
    assert (run.status, run.sampled) == ("done", 0)
    assert world.graph.current_run(SESSION) is None
    assert world.graph.count_unconsolidated(SESSION) == {SESSION: 60}
