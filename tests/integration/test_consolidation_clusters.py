"""Consolidation makes clusters with names that last as a session grows, on the real embedded stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.integration.consolidating import SESSION, TOPICS, World, texts
from tests.unit.consolidation.blobs import blobs
from ww.bench.agreement import persistence
from ww_core.consolidation import pipeline
from ww_core.consolidation.clustering import Clustering
from ww_core.models import Cluster, Vector


def test_a_session_becomes_named_clusters(world: World) -> None:
    rows, truth = blobs(6, 30, noise=20)
    ids = world.store(texts(truth), rows)
    run = world.consolidate()
    assert (run.status, run.considered, run.sampled) == ("done", 200, 200)
    assert run.assigned + run.noise == 200
    assert len(run.clusters) == 6
    places = world.places(ids)
    assert (
        adjusted_rand_score(truth[truth >= 0], [p or "-" for p, t in zip(places, truth, strict=True) if t >= 0]) > 0.95
    )
    current = world.graph.current_run(SESSION)
    assert current is not None
    assert {c.label for c in current.clusters} == set(TOPICS)
    for cluster in current.clusters:
        assert cluster.change == "new"
        assert cluster.size == places.count(cluster.cluster_id)
        assert cluster.medoid is not None
        assert cluster.label in cluster.medoid.content
        assert cluster.radius > 0


def test_clusters_keep_their_ids_and_labels_as_they_grow(world: World) -> None:
    rows, truth = blobs(5, 40)
    world.store(texts(truth[:100]), rows[:100])
    before = {c.cluster_id: c.label for c in world.consolidate().clusters}
    world.store(texts(truth[100:]), rows[100:])
    after = world.consolidate()
    assert {c.cluster_id: c.label for c in after.clusters} == before
    assert {c.change for c in after.clusters} == {"kept"}
    assert sum(c.size for c in after.clusters) == after.assigned + 100 - sum(
        p is None for p in world.places([f"e{i:07}" for i in range(100)])
    )


def test_a_new_topic_becomes_a_new_cluster_beside_the_old_ones(world: World) -> None:
    rows, truth = blobs(4, 30)
    old = truth < 3
    world.store(texts(truth[old]), rows[old])
    before = {c.cluster_id for c in world.consolidate().clusters}
    world.store(texts(truth[~old]), rows[~old])
    after = world.consolidate()
    assert before < {c.cluster_id for c in after.clusters}
    (new,) = [c for c in after.clusters if c.change == "new"]
    assert new.label == TOPICS[3]


def test_the_seed_decides_which_episodes_are_sampled(tmp_path: Path) -> None:
    rows, truth = blobs(5, 60, spread=0.5)
    drawn = []
    for seed in (1, 2):
        made = World(tmp_path / str(seed), consolidation_max_samples=50, consolidation_seed=seed)
        made.store(texts(truth), rows)
        drawn.append({name for c in made.consolidate().clusters for name in c.exemplars})
        made.close()
    assert drawn[0] != drawn[1]


def test_the_cap_bounds_the_sample_and_the_rest_is_assigned(tmp_path: Path) -> None:
    rows, truth = blobs(6, 100, noise=60)
    made = World(tmp_path, consolidation_max_samples=60, consolidation_batch_size=50)
    ids = made.store(texts(truth), rows)
    run = made.consolidate()
    assert run.considered == 660
    assert run.sampled == 60
    assert len(run.clusters) == 6
    nearest = np.array(made.nearest(ids))
    assert adjusted_rand_score(truth[truth >= 0], nearest[truth >= 0]) > 0.95
    places = np.array(made.places(ids), dtype=object)
    assert sum(p is None for p in places[truth < 0]) > 40
    assert run.assigned == sum(p is not None for p in places)
    assert {c.cluster_id: c.size for c in run.clusters} == {
        c.cluster_id: list(places).count(c.cluster_id) for c in run.clusters
    }
    made.close()


def test_a_large_session_takes_in_what_is_new_and_finds_a_new_topic(tmp_path: Path) -> None:
    rows, truth = blobs(6, 100)
    made = World(tmp_path, consolidation_max_samples=60, consolidation_batch_size=100)
    old = truth < 5
    made.store(texts(truth[old]), rows[old])
    before = made.consolidate()
    assert len(before.clusters) == 5
    known = np.flatnonzero(truth < 5)[:50]
    new = np.concatenate([known, np.flatnonzero(~old)])
    ids = made.store(texts(truth[new]), rows[new])
    after = made.consolidate()
    assert after.considered == 150
    assert {c.cluster_id for c in before.clusters} < {c.cluster_id for c in after.clusters}
    assert adjusted_rand_score(truth[new], made.nearest(ids)) > 0.95
    (topic,) = [c for c in after.clusters if c.change == "new"]
    assert topic.label == TOPICS[5]
    made.close()


def test_a_cluster_that_has_grown_is_split_where_it_falls_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    axes = np.eye(64)

    def around(centre: Any, n: int) -> Any:
        near = centre + rng.normal(size=(n, 64)) * 0.03
        return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)

    one, other = axes[0] + 0.5 * axes[10], axes[0] - 0.5 * axes[10]
    made = World(tmp_path, consolidation_max_samples=100, consolidation_min_cluster_size=15)
    left = made.store(["the tape is full"] * 50, around(one, 50))
    right = made.store(["the disk is slow"] * 50, around(other, 50))
    for i in range(1, 5):
        made.store([f"the {TOPICS[i]} again"] * 100, around(axes[i], 100))
    before = made.consolidate()
    (torn,) = set(made.places(left)) - {None}
    assert len(before.clusters) == 5
    assert set(made.places(right)) - {None} == {torn}

    finer = made.with_settings(made.settings.replace(consolidation_min_cluster_size="auto"))
    left += made.store(["the tape is full"] * 60, around(one, 60))
    right += made.store(["the disk is slow"] * 60, around(other, 60))
    after = finer.run(made.graph.request_run(SESSION).run_id, token="t")
    parts = {c.cluster_id: c for c in after.clusters if c.change == "split"}
    assert len(parts) == 2
    assert torn in parts, "the larger part keeps the id"
    assert {p.parents for p in parts.values()} == {(torn,)}
    assert len({p.label for p in parts.values()}) == 2
    places = made.places([*left, *right])
    assert len(set(places[:110]) - {None}) == len(set(places[110:]) - {None}) == 1
    assert set(places[:110]).isdisjoint(set(places[110:]) - {None})
    assert {c.cluster_id: c.size for c in after.clusters if c.cluster_id in parts} == {
        name: places.count(name) for name in parts
    }
    made.close()


def test_what_splits_off_from_two_clusters_at_once_is_one_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, truth = blobs(4, 160)
    made = World(tmp_path, consolidation_max_samples=150)
    old, new = np.arange(640) < 400, np.arange(640) >= 400
    ids = made.store(texts(truth[old]), rows[old])
    before = made.consolidate()
    assert len(before.clusters) == 4
    torn = {made.places(ids)[np.flatnonzero(truth[old] == topic)[0]] for topic in (0, 1)}

    odd = np.arange(640) % 2 == 1
    finer = np.where((truth < 2) & odd, 4, truth).astype(np.int32)

    def found(vectors: Vector, **_: object) -> Clustering:
        labels = finer[(vectors @ rows.T).argmax(axis=1)]
        return Clustering(labels, labels)

    monkeypatch.setattr(pipeline, "cluster", found)
    ids += made.store(texts(truth[new]), rows[new])
    after = made.consolidate()
    parts = {c.cluster_id: c for c in after.clusters if c.change == "split"}
    (common,) = set(parts) - torn
    assert len(parts) == 3
    assert set(parts[common].parents) == torn
    places = np.array(made.places(ids), dtype=object)
    assert {c.cluster_id: c.size for c in after.clusters} == {name: (places == name).sum() for name in set(places)}
    topics = np.concatenate([truth[old], truth[new]])
    assert set(topics[places == common]) == {0, 1}, "it has members that were of the one, and of the other"
    made.close()


def test_duplicates_are_folded_into_the_first(world: World) -> None:
    rows, truth = blobs(3, 20)
    ids = world.store(texts(truth), rows)
    copies = world.store([texts(truth)[0]] * 3, np.tile(rows[0], (3, 1)))
    run = world.consolidate()
    found = world.graph.get([*ids, *copies])
    assert {found[name].duplicate_of for name in copies} == {ids[0]}
    assert found[ids[0]].duplicate_of is None
    assert run.folded == sum(e.duplicate_of is not None for e in found.values())


@pytest.mark.parametrize(("threshold", "folded"), [(0.9, True), (0.999, False)])
def test_the_threshold_decides_what_is_a_near_duplicate(tmp_path: Path, threshold: float, folded: bool) -> None:
    made = World(tmp_path, duplicate_threshold=threshold)
    rows = np.array([[1.0, 0.0], [0.97, 0.243]], dtype=np.float32)
    rows = np.hstack([rows / np.linalg.norm(rows, axis=1, keepdims=True), np.zeros((2, 62), np.float32)])
    ids = made.store(["the disk is full", "the disk is quite full"], rows.astype(np.float32))
    made.consolidate()
    assert (made.graph.get(ids)[ids[1]].duplicate_of == ids[0]) is folded
    made.close()


def test_a_hook_gives_better_names_and_no_two_clusters_share_one(world: World) -> None:
    seen: list[tuple[Cluster, tuple[str, ...]]] = []

    def name(cluster: Cluster, examples: tuple[str, ...]) -> str:
        seen.append((cluster, examples))
        return "topic"

    world.hooks.add("name_cluster", name)
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    labels = [c.label for c in world.consolidate().clusters]
    assert sorted(labels) == ["topic", "topic (2)", "topic (3)"]
    assert all(examples and cluster.size for cluster, examples in seen)


def test_what_no_cluster_held_is_found_once_there_is_enough_of_it(tmp_path: Path) -> None:
    rows, truth = blobs(4, 60)
    made = World(tmp_path, consolidation_max_samples=40, consolidation_batch_size=50)
    old = truth < 3
    few = np.flatnonzero(~old)
    made.store(texts(truth[old]), rows[old])
    made.consolidate()
    ids: list[str] = []
    for part in np.array_split(few[:24], 6):
        ids += made.store(texts(truth[part]), rows[part])
        made.consolidate()
    places = made.places(ids)
    assert len(set(places)) <= 2, "four episodes at a time never became one cluster"
    assert sum(p is not None for p in places) > 12
    made.close()


@pytest.mark.parametrize("cap", [2000, 60], ids=["whole", "drawn"])
def test_clusters_keep_their_ids_while_a_session_arrives_in_ten_random_tenths(tmp_path: Path, cap: int) -> None:
    rows, truth = blobs(8, 60, noise=40, spread=0.5)
    at_once = World(tmp_path / "once", consolidation_max_samples=cap)
    ids = at_once.store(texts(truth % len(TOPICS)), rows)
    at_once.consolidate()
    real = truth >= 0
    once = adjusted_rand_score(truth[real], np.array(at_once.nearest(ids))[real])
    at_once.close()
    made = World(tmp_path / "tenths", consolidation_max_samples=cap)
    name_of: dict[int, str] = {}
    before: dict[str, set[str]] = {}
    lasted = kept = 0
    for part in np.array_split(np.random.default_rng(3).permutation(len(truth)), 10):
        name_of |= dict(zip(part.tolist(), made.store(texts(truth[part] % len(TOPICS)), rows[part]), strict=True))
        made.consolidate()
        now: dict[str, set[str]] = {}
        for name, place in zip(name_of.values(), made.places(list(name_of.values())), strict=True):
            if place is not None:
                now.setdefault(place, set()).add(name)
        here = persistence(before, now)
        lasted, kept, before = lasted + here[0], kept + here[1], now
    assert lasted >= 50
    assert kept >= 0.9 * lasted
    final = np.array(made.nearest([name_of[i] for i in range(len(truth))]))
    assert adjusted_rand_score(truth[real], final[real]) > once - 0.03
    made.close()


def test_a_forgotten_exemplar_is_no_example_any_more(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows)
    run = world.consolidate()
    medoid = run.clusters[0].medoid
    assert medoid is not None
    world.graph.tombstone(episode_ids=[medoid.episode_id])
    world.vectors.delete([medoid.episode_id])
    world.store(texts(truth[:5]), rows[:5])
    after = world.consolidate()
    assert all(c.medoid is None or c.medoid.episode_id != medoid.episode_id for c in after.clusters)
    assert all(medoid.episode_id not in c.exemplars for c in after.clusters)
    assert replace(after, clusters=()).status == "done"


@pytest.mark.parametrize("n", [1, 3, 9])
def test_a_few_episodes_stay_unclustered_and_are_not_looked_at_again(world: World, n: int) -> None:
    rows, truth = blobs(3, 3)
    ids = world.store(texts(truth[:n]), rows[:n])
    run = world.consolidate()
    assert (run.status, run.considered, run.noise, run.clusters) == ("done", n, n, ())
    assert world.places(ids) == [None] * n
    assert world.consolidate().considered == 0


def test_sessions_are_consolidated_apart(world: World) -> None:
    rows, truth = blobs(3, 20)
    world.store(texts(truth), rows, session="a")
    world.store(texts(truth), rows, session="b")
    one, other = world.consolidate("a"), world.consolidate("b")
    assert {c.cluster_id for c in one.clusters}.isdisjoint({c.cluster_id for c in other.clusters})
    assert one.folded == other.folded == 0
    assert {c.session_id for c in one.clusters} == {"a"}
