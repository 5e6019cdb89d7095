"""Whatever is found in a sample, a run of a large session can be published, and its books are right."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.integration.consolidating import World, texts
from tests.unit.consolidation.blobs import blobs
from ww_core.consolidation import pipeline
from ww_core.consolidation.clustering import Clustering
from ww_core.models import Vector

Labels = NDArray[np.int32]


def changed(labels: Labels, rng: np.random.Generator) -> Labels:
    """The labels after a few clusters were torn apart, torn into a common one, merged or stirred."""
    made, count = labels.copy(), int(labels.max()) + 1
    for _ in range(int(rng.integers(1, 4))):
        one, other = rng.integers(0, count, 2)
        some = rng.random(len(made)) < rng.uniform(0.3, 0.7)
        match rng.choice(["common", "common", "split", "merge", "stir"]):
            case "common":
                made[np.isin(made, [one, other]) & some] = made.max() + 1
            case "split":
                made[(made == one) & some] = made.max() + 1
            case "merge":
                made[made == one] = other
            case _:
                stirred = rng.random(len(made)) < 0.15
                made[stirred] = rng.integers(-1, made.max() + 1, stirred.sum())
    return made


def numbered(labels: Labels) -> Clustering:
    found = [label for label, _ in Counter(labels[labels >= 0].tolist()).most_common()]
    places = {label: number for number, label in enumerate(found)}
    made = np.array([places.get(label, -1) for label in labels.tolist()], dtype=np.int32)
    return Clustering(made, made)


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 23, 25, 51, 91, 110])
def test_whatever_is_found_can_be_published(seed: int, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    rows, truth = blobs(int(rng.integers(3, 6)), int(rng.integers(40, 90)), noise=int(rng.integers(0, 30)), seed=seed)
    world = World(quick_path, consolidation_max_samples=max(40, len(rows) // 5), consolidation_batch_size=50)
    real, first = pipeline.cluster, [True]

    def found(vectors: Vector, **how: Any) -> Clustering:
        if first:
            first.clear()
            return real(vectors, **how)
        return numbered(changed(truth[(vectors @ rows.T).argmax(axis=1)], rng))

    monkeypatch.setattr(pipeline, "cluster", found)
    third = len(rows) // 3
    ids: list[str] = []
    for part in (slice(third), slice(third, 2 * third), slice(2 * third, None)):
        ids += world.store(texts(truth[part]), rows[part])
        run = world.consolidate()
        assert run.status == "done"
        standing = [c for c in run.clusters if c.change != "gone"]
        assert len({c.cluster_id for c in run.clusters}) == len(run.clusters)
        assert len({c.label for c in standing}) == len(standing)
        placed = Counter(place for place in world.places(ids) if place is not None)
        assert {c.cluster_id: c.size for c in standing} == placed
    world.close()
