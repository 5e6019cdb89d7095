"""Clusters of real, labelled short texts: banking77 and CLINC150, one setting for both."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from tests.integration.consolidating import World
from ww.bench.figure import cpu
from ww_core.config import Settings
from ww_core.consolidation.clustering import Clustering, cluster
from ww_core.embedding import EmbeddingService
from ww_core.models import Vector

DATA = Path(os.environ.get("WW_BENCH_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
OUT_OF_SCOPE = "oos"


@dataclass(frozen=True)
class Labelled:
    """Texts with their true labels and vectors (n, d)."""

    texts: list[str]
    labels: NDArray[np.str_]
    vectors: Vector

    @cached_property
    def clusters(self) -> Clustering:
        """All of them clustered at once."""
        return cluster(self.vectors)

    def where(self, mask: NDArray[np.bool_]) -> Labelled:
        rows = np.flatnonzero(mask)
        return Labelled([self.texts[i] for i in rows], self.labels[rows], self.vectors[rows])


@pytest.fixture(scope="session")
def encode() -> Iterator[Any]:
    service = EmbeddingService(Settings())
    yield service.encode
    service.close()


def needed(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is absent: set WW_BENCH_DATA to the folder that holds it")
    return path


@pytest.fixture(scope="session")
def banking(encode: Any) -> Labelled:
    with needed("banking77-test.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = [row["text"] for row in rows]
    return Labelled(texts, np.array([row["category"] for row in rows]), encode(texts))


@pytest.fixture(scope="session")
def clinc(encode: Any) -> Labelled:
    lines = needed("clinc150-test.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    texts = [row["text"] for row in rows]
    return Labelled(texts, np.array([row["label"] for row in rows]), encode(texts))


@pytest.fixture(scope="session")
def in_scope(clinc: Labelled) -> Labelled:
    return clinc.where(clinc.labels != OUT_OF_SCOPE)


def test_banking77_is_found_again(banking: Labelled) -> None:
    assert adjusted_rand_score(banking.labels, banking.clusters.nearest) >= 0.57


def test_clinc150_is_found_again(in_scope: Labelled) -> None:
    assert adjusted_rand_score(in_scope.labels, in_scope.clusters.nearest) >= 0.72


@pytest.mark.parametrize("name", ["banking", "in_scope"])
def test_a_sample_of_two_thousand_loses_little(name: str, request: pytest.FixtureRequest) -> None:
    data: Labelled = request.getfixturevalue(name)
    whole = adjusted_rand_score(data.labels, data.clusters.nearest)
    core = np.zeros(len(data.labels), dtype=np.bool_)
    core[np.random.default_rng(0).permutation(len(core))[:2000]] = True
    assert adjusted_rand_score(data.labels, cluster(data.vectors, core=core).nearest) >= whole - 0.03


def test_queries_out_of_scope_are_left_out_far_more_often(clinc: Labelled) -> None:
    left_out = clinc.clusters.labels < 0
    outside = clinc.labels == OUT_OF_SCOPE
    assert left_out[outside].mean() >= 0.55
    assert left_out[~outside].mean() <= 0.15


def test_two_thousand_samples_take_less_than_the_librarys_own_path(banking: Labelled) -> None:
    import hdbscan

    rows = banking.vectors[:2000]
    library = hdbscan.HDBSCAN(min_cluster_size=10, min_samples=5, core_dist_n_jobs=1)
    cluster(rows[:200])
    own, theirs = cpu(lambda: cluster(rows)), cpu(lambda: library.fit(rows.astype(np.float64)))
    print(f"2,000 samples: {own:.2f} s of CPU time, by the library's own path {theirs:.2f} s")
    assert own < theirs


def test_ten_runs_while_data_arrives_end_where_one_run_does(in_scope: Labelled, tmp_path: Path) -> None:
    data = in_scope.where(np.isin(in_scope.labels, np.unique(in_scope.labels)[:60]))
    order = np.random.default_rng(3).permutation(len(data.labels))
    dimension = data.vectors.shape[1]
    world = World(tmp_path, dimension=dimension)
    ids: list[str] = []
    kept = persisting = 0
    before: dict[str, set[str]] = {}
    for part in np.array_split(order, 10):
        ids += world.store([data.texts[i] for i in part], data.vectors[part])
        run = world.consolidate()
        places = world.places(ids)
        now: dict[str, set[str]] = {}
        for name, place in zip(ids, places, strict=True):
            if place is not None:
                now.setdefault(place, set()).add(name)
        for cluster_id, members in before.items():
            # It persists where more than half of it is still together.
            home = max(now, key=lambda c: len(now[c] & members))
            if len(now[home] & members) > len(members) / 2:
                persisting += 1
                kept += home == cluster_id
        before = now
        assert len({c.label for c in run.clusters if c.change != "gone"}) == len(now)
    final = adjusted_rand_score(data.labels[order], np.array(world.nearest(ids)))
    world.close()
    once = adjusted_rand_score(data.labels, cluster(data.vectors).nearest)
    assert final >= once - 0.03
    assert kept >= 0.9 * persisting
