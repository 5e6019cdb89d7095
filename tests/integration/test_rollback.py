"""Taking runs back, ending them early, and killing them: what was visible before is visible again."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.consolidating import SESSION, World
from tests.integration.observing import clusters_as_json, observed
from tests.unit.consolidation.blobs import blobs
from ww.cli.output import pick
from ww_core.consolidation.progress import Watch
from ww_core.consolidation.selection import New
from ww_core.consolidation.sink import Stage
from ww_core.errors import Busy
from ww_core.maintenance.erase import erase
from ww_core.models import Run
from ww_core.stores.ports import Where

TOPICS = ["nightly backup", "open invoice", "coffee machine", "failing test"]


def texts(labels: Any) -> list[str]:
    return [f"that is the {TOPICS[label]} {i}" for i, label in enumerate(labels)]


def state(world: World) -> str:
    """All that readers can see of the session's clusters, as text."""
    run = world.graph.current_run(SESSION)
    clusters = [c for c in run.clusters if c.change != "gone"] if run is not None else []
    fields = ("cluster_id", "label", "size", "keyphrases", "medoid", "radius", "created_at")
    places = [
        (m.episode_id, m.cluster_id, m.nearest, round(m.distance, 9), m.duplicate_of)
        for m in world.graph.memberships(SESSION, limit=100_000)
    ]
    cells = [world.vectors.count(Where(cells=(c.cluster_id,), archived=None)) for c in clusters]
    new = [e.episode_id for e in world.graph.unconsolidated(SESSION, limit=100_000)]
    return json.dumps([[pick(c, fields) for c in clusters], sorted(places, key=str), cells, new])


def test_every_run_of_a_history_can_be_taken_back_exactly(world: World) -> None:
    rows, truth = blobs(4, 40, noise=0)
    states: list[tuple[str, Run]] = []
    for part in (slice(0, 60), slice(60, 100), slice(100, 160)):
        world.store(texts(truth[part]), rows[part])
        before = state(world)
        states.append((before, world.consolidate()))
    later: list[str] = []
    for before, run in reversed(states):
        assert world.consolidator.rollback(run.run_id).status == "rolled_back"
        now = json.loads(state(world))
        assert [e for e in now[3] if e not in later] == json.loads(before)[3]
        assert now[:3] == json.loads(before)[:3]
        later = now[3]
    assert world.graph.current_run(SESSION) is None


def test_themes_are_those_of_the_visible_run_and_go_with_their_session(world: World) -> None:
    rows, truth = blobs(12, 20, spread=0.4)
    world.store([f"that is topic{label} {i}" for i, label in enumerate(truth[:160])], rows[:160])
    run = world.consolidate()
    before = json.loads(clusters_as_json(world))
    assert len(before["themes"]) > 1
    held = [name for theme in before["themes"] for name in theme["clusters"]]
    assert sorted(held) == sorted(one["cluster_id"] for one in before["clusters"])
    world.store([f"that is topic{label} {i}" for i, label in enumerate(truth[160:])], rows[160:])
    later = world.consolidate()
    shown = world.graph.current_run(SESSION)
    assert shown is not None
    assert all(c.theme_id for c in shown.clusters)
    assert {c.cluster_id: c.theme_id for c in shown.clusters} == {c.cluster_id: c.theme_id for c in later.clusters}
    world.consolidator.rollback(later.run_id)
    assert json.loads(clusters_as_json(world)) == before
    erase(world.graph, world.vectors, session_id=SESSION)
    names = {c.theme_id.encode() for c in run.clusters}
    files = [file.read_bytes() for file in world.settings.data_dir.rglob("graph.sqlite3*") if file.is_file()]
    assert not [name for name in names for held in files if name in held]


def test_what_was_forgotten_stays_forgotten(world: World) -> None:
    rows, truth = blobs(3, 30)
    ids = world.store(texts(truth), rows)
    world.consolidate()
    more, labels = blobs(3, 10)
    world.store(texts(labels), more)
    run = world.consolidate()
    world.graph.tombstone(episode_ids=[ids[0]])
    world.consolidator.rollback(run.run_id)
    assert ids[0] not in {m.episode_id for m in world.graph.memberships(SESSION, limit=1000)}
    assert world.graph.get([ids[0]]) == {}


def test_a_run_under_way_refuses_a_rollback_and_another_run(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth[:40]), rows[:40])
    run = world.consolidate()
    world.store(texts(truth[40:]), rows[40:])
    other = world.graph.request_run(SESSION)
    world.graph.start_run(other.run_id, token="other", lease_seconds=60)
    with pytest.raises(Busy, match=other.run_id):
        world.consolidator.rollback(run.run_id)
    with pytest.raises(Busy, match=other.run_id):
        world.consolidate()


def test_a_rollback_waits_for_the_worker_that_tidies_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    before = state(world)
    hold, refused = world.graph.hold_run, threading.Event()
    taken_back: list[Run] = []

    def told(run_id: str, *, token: str, lease_seconds: float) -> bool:
        had = hold(run_id, token=token, lease_seconds=lease_seconds)
        if not had:
            refused.set()
        return had

    def tidying(run: Run, new: New, stage: Stage, watch: Watch, token: str) -> None:
        thread = threading.Thread(target=lambda: taken_back.append(world.consolidator.rollback(run.run_id)))
        thread.start()
        assert refused.wait(30)
        tidy(run, new, stage, watch, token)
        thread.join(30)

    tidy = world.consolidator._tidy
    monkeypatch.setattr(world.graph, "hold_run", told)
    monkeypatch.setattr(world.consolidator, "_tidy", tidying)
    world.consolidate()
    assert [run.status for run in taken_back] == ["rolled_back"]
    assert state(world) == before
    assert world.graph.facts("consolidation.cells:") == {}


def test_a_cancelled_run_ends_and_changes_nothing(world: World) -> None:
    rows, truth = blobs(4, 30)
    world.store(texts(truth[:80]), rows[:80])
    world.consolidate()
    world.store(texts(truth[80:]), rows[80:])
    before = state(world)
    requested = world.graph.request_run(SESSION)

    def cancel(progress: float) -> None:
        if progress >= 0.9 and world.graph.run(requested.run_id).status == "running":
            world.graph.cancel_run(requested.run_id)

    assert world.consolidator.run(requested.run_id, token="t", on_progress=cancel).status == "cancelled"
    assert state(world) == before
    assert world.consolidate().considered == 40


def test_a_requested_run_is_cancelled_before_it_starts(world: World) -> None:
    rows, truth = blobs(2, 10)
    world.store(texts(truth), rows)
    requested = world.graph.request_run(SESSION)
    assert world.graph.cancel_run(requested.run_id).status == "cancelled"
    with pytest.raises(Busy, match="cancelled already"):
        world.graph.cancel_run(requested.run_id)
    with pytest.raises(Busy):
        world.consolidator.run(requested.run_id, token="t")


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("neo4j", marks=pytest.mark.full)])
def test_births_splits_merges_and_folding_are_taken_back_to_the_byte(
    kind: str, quick_path: Path, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("neo4j_server") if kind == "neo4j" else None
    world = World(quick_path, neo4j=server)
    rng, axes = np.random.default_rng(0), np.eye(64)

    def store(text: str, centre: Any, n: int) -> list[str]:
        near = centre + rng.normal(size=(n, 64)) * 0.03
        rows = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)
        numbered = [f"{text} {world.now.timestamp() + i:.0f}" for i in range(n)]
        return world.store(numbered, rows)

    def consolidate(smallest: int | str, cap: int = 100) -> Run:
        settings = world.settings.replace(consolidation_min_cluster_size=smallest, consolidation_max_samples=cap)
        return world.with_settings(settings).run(world.graph.request_run(SESSION).run_id, token="t")

    def taken_back(smallest: int | str, cap: int = 100) -> Run:
        """A run that was taken back, and then made for good."""
        before = observed(world, queries)
        run = consolidate(smallest, cap)
        between = observed(world, queries)
        assert between["clusters"] != before["clusters"]
        assert between["hierarchical"] != before["hierarchical"]
        world.consolidator.rollback(run.run_id)
        assert observed(world, queries) == before
        shown.append(before["clusters"])
        return consolidate(smallest, cap)

    shown: list[str] = []
    one, other = axes[0] + 0.5 * axes[10], axes[0] - 0.5 * axes[10]
    queries = np.stack([axes[1], axes[0], one / np.linalg.norm(one)]).astype(np.float32)
    for i in range(1, 5):
        store(f"the {TOPICS[i - 1]} again", axes[i], 100)
    old = store("the tape is full", one, 50) + store("the disk is slow", other, 50)
    runs = [taken_back(15)]
    old += store("the tape is full", one, 60) + store("the disk is slow", other, 60)
    world.store(["that again"] * 5, np.tile(axes[1].astype(np.float32), (5, 1)))
    runs.append(taken_back("auto"))
    world.graph.archive(old[:30])
    store("between the two", axes[0], 60)
    for i in range(1, 5):
        store(f"the {TOPICS[i - 1]} again", axes[i], 80)
    runs.append(taken_back(140, cap=2000))
    assert {c.change for c in runs[0].clusters} == {"new"}
    assert "split" in {c.change for c in runs[1].clusters}
    assert {"merged", "gone"} <= {c.change for c in runs[2].clusters}
    assert runs[1].folded >= 4
    for clusters, run in zip(reversed(shown), reversed(runs), strict=True):
        world.consolidator.rollback(run.run_id)
        assert clusters_as_json(world) == clusters
    assert {name for name, e in world.graph.get(old).items() if e.archived} == set(old[:30])
    world.close()
