"""Exact copies are folded wherever they lie: beyond the cap of a run, and of whatever earlier runs have placed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.integration.consolidating import SESSION, World, texts
from tests.integration.observing import clusters_as_json
from tests.unit.consolidation.blobs import blobs
from ww_core.maintenance.erase import erase
from ww_core.models import Vector
from ww_core.stores.ports import Membership

CAP = 20
ROWS, TRUTH = blobs(6, 40, noise=60)
TEXTS = texts(TRUTH)


def memberships(world: World) -> list[Membership]:
    return sorted(world.graph.memberships(SESSION, limit=100_000), key=lambda m: m.episode_id)


def original(world: World, episode_id: str) -> str | None:
    return world.graph.get([episode_id])[episode_id].duplicate_of


def later(said: list[tuple[str, Vector]]) -> tuple[list[str], Vector]:
    """Five times the cap of new episodes, with what was ``said`` before spread among them."""
    rows, truth = blobs(6, 15, noise=10, seed=1)
    heard = [f"later on {text}" for text in texts(truth)]
    every = len(heard) // len(said)
    for i, (text, row) in enumerate(said):
        heard[i * every] = text
        rows[i * every] = row
    return heard, rows


@pytest.fixture(params=["sqlite", pytest.param("neo4j", marks=pytest.mark.full)])
def world(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[World]:
    server = request.getfixturevalue("neo4j_server") if request.param == "neo4j" else None
    made = World(
        quick_path,
        neo4j=server,
        consolidation_max_samples=CAP,
        consolidation_batch_size=50,
        consolidation_keep_runs=5,
        duplicate_threshold=1.0,
    )
    yield made
    made.close()


def test_copies_beyond_the_cap_are_folded_into_what_was_stored_before(world: World) -> None:
    ids = world.store([*TEXTS, TEXTS[0], TEXTS[7]], np.vstack([ROWS, ROWS[[0, 7]]]))
    first = world.consolidate()
    assert first.sampled == CAP
    assert first.folded == 2
    assert [original(world, name) for name in ids[-2:]] == [ids[0], ids[7]]
    places = dict(zip(ids, world.places(ids), strict=True))
    member = next(i for i, name in enumerate(ids) if i > 7 and places[name] is not None)
    outside = next(i for i, name in enumerate(ids) if i > 7 and places[name] is None)
    archived = member + outside + 1
    world.graph.archive([ids[archived]])
    before, shown = memberships(world), clusters_as_json(world)

    sources = [0, 7, member, outside, archived]
    said = [(f"  {TEXTS[i].upper()} ", ROWS[i]) for i in sources for _ in range(3)]
    heard, rows = later([*said, ("never said before", ROWS[1]), ("Never said  before", ROWS[1])])
    new = world.store(heard, rows)
    preview = world.consolidator.preview(SESSION)
    run = world.consolidate()
    assert run.considered == len(new) > CAP == run.sampled
    assert preview.folded == run.folded == len(said) + 1

    def folded() -> dict[str, str | None]:
        return {name: original(world, name) for name in new}

    where = {text: [new[i] for i, other in enumerate(heard) if other == text] for text, _ in said}
    for i in sources:
        copies = where[f"  {TEXTS[i].upper()} "]
        assert [original(world, name) for name in copies] == [ids[i]] * 3
        assert world.graph.folds([ids[i]])[ids[i]].count == 1 + 3 + (i in (0, 7))
    once, again = (new[heard.index(text)] for text in ("never said before", "Never said  before"))
    assert (original(world, once), original(world, again)) == (None, once)
    found = folded()

    world.consolidator.rollback(run.run_id)
    assert (memberships(world), clusters_as_json(world)) == (before, shown)
    assert world.consolidate().folded == run.folded
    assert folded() == found

    # the original goes: the first of its copies takes its place, for those there are and those to come
    erase(world.graph, world.vectors, episode_ids=[ids[0]])
    copies = [ids[-2], *where[f"  {TEXTS[0].upper()} "]]
    assert [original(world, name) for name in copies] == [None, *[ids[-2]] * 3]
    more = world.store(*later([(TEXTS[0], ROWS[0])]))
    world.consolidate()
    assert original(world, more[0]) == ids[-2]


def test_the_same_input_folds_the_same_copies(tmp_path: Path) -> None:
    seen = []
    for turn in ("one", "other"):
        world = World(tmp_path / turn, consolidation_max_samples=CAP, consolidation_batch_size=50)
        world.store([*TEXTS, TEXTS[0]], np.vstack([ROWS, ROWS[:1]]))
        world.consolidate()
        world.store(*later([(TEXTS[i], ROWS[i]) for i in (0, 3, 3, 8)]))
        runs = [world.consolidate()]
        seen.append((memberships(world), [(run.folded, [c.cluster_id for c in run.clusters]) for run in runs]))
        world.close()
    assert seen[0] == seen[1]
    assert seen[0][1][0][0] >= 4


def test_what_was_folded_stays_folded_where_its_cluster_is_taken_apart(tmp_path: Path) -> None:
    rng, axes = np.random.default_rng(0), np.eye(64)

    def around(centre: np.ndarray, n: int) -> Vector:
        near = centre + rng.normal(size=(n, 64)) * 0.03
        return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)

    world = World(tmp_path, consolidation_max_samples=100, consolidation_min_cluster_size=15, duplicate_threshold=1.0)
    halves = [axes[0] + 0.5 * axes[10], axes[0] - 0.5 * axes[10]]
    said = ["the tape is full", "the disk is slow"]
    ids = [world.store([text] * 50, around(half, 50)) for text, half in zip(said, halves, strict=True)]
    for i in range(1, 5):
        world.store([f"number {i} again {n}" for n in range(100)], around(axes[i], 100))
    assert world.consolidate().folded == 98
    finer = world.with_settings(world.settings.replace(consolidation_min_cluster_size="auto"))
    for known, text, half in zip(ids, said, halves, strict=True):
        known += world.store([text] * 60, around(half, 60))
    after = finer.run(world.graph.request_run(SESSION).run_id, token="t")
    assert sum(c.change == "split" for c in after.clusters) == 2
    for known in ids:
        found = world.graph.get(known)
        assert [found[name].duplicate_of for name in known] == [None, *[known[0]] * 109]
    world.close()
