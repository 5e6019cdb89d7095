"""Traces of erased points leave the vector store's files in time, and not with every erasure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.files import files_with
from tests.unit.maintenance.conftest import NOON, Bench
from ww_core.maintenance import scrub
from ww_core.maintenance.erase import erase
from ww_core.maintenance.sweep import sweep
from ww_core.stores.ports import CONTENT, CONTEXT, Point


def swept(bench: Bench, hours: float) -> bool:
    return sweep(bench.graph, bench.vectors, max_attempts=3, clock=lambda: NOON + timedelta(hours=hours)).scrubbed


def test_a_sweep_after_an_erasure_removes_the_numbers_too(bench: Bench, quick_path: Path) -> None:
    ids = bench.store(*(f"text {i}" for i in range(20)))
    bench.drain().run()
    assert not swept(bench, 0), "nothing was erased yet"
    (stored,) = bench.vectors.vectors(ids[:1])
    needle = stored.vector.tobytes()
    shard = quick_path / "vectors"
    assert files_with(needle, shard)
    erase(bench.graph, bench.vectors, episode_ids=ids[:1])
    assert scrub.pending(bench.graph)
    assert swept(bench, 0)
    assert not scrub.pending(bench.graph)
    assert files_with(needle, shard) == []
    assert files_with(ids[0].encode(), shard) == []
    assert bench.verify().ok


def test_many_erasures_cost_one_scrub_an_hour(bench: Bench) -> None:
    ids = bench.store(*(f"text {i}" for i in range(20)))
    bench.drain().run()
    done = []
    for step in range(6):
        erase(bench.graph, bench.vectors, episode_ids=ids[step : step + 1])
        done.append(swept(bench, step * 0.5))
    assert done == [True, False, True, False, True, False]
    assert scrub.pending(bench.graph)
    assert swept(bench, 3.1)
    assert not swept(bench, 10), "nothing was erased since"


def test_a_large_store_is_scrubbed_only_by_who_asks_for_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "MOST_POINTS", 10)
    ids = bench.store(*(f"text {i}" for i in range(20)))
    bench.drain().run()
    erase(bench.graph, bench.vectors, episode_ids=ids[:1])
    assert not swept(bench, 0)
    scrub.scrub(bench.graph, bench.vectors, now=NOON)
    assert not scrub.pending(bench.graph)


def test_a_process_that_dies_in_an_erasure_leaves_a_scrub_due(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = bench.store(*(f"text {i}" for i in range(20)))
    bench.drain().run()
    delete = bench.vectors.delete

    def delete_and_die(episode_ids: Sequence[str]) -> int:
        delete(episode_ids)
        raise KeyboardInterrupt

    monkeypatch.setattr(bench.vectors, "delete", delete_and_die)
    with pytest.raises(KeyboardInterrupt):
        erase(bench.graph, bench.vectors, episode_ids=ids[:1])
    monkeypatch.undo()
    assert bench.vectors.generations(ids[:1]) == {}
    assert swept(bench, 0)


def test_points_of_nobody_leave_no_numbers_either(bench: Bench) -> None:
    ids = bench.store(*(f"text {i}" for i in range(20)))
    bench.drain().run()
    erase(bench.graph, bench.vectors, episode_ids=ids[:1])
    assert swept(bench, 0)
    # a worker that was frozen while the episode was erased writes its points, and dies
    bench.vectors.upsert(points_of(bench, ids[0]))
    assert swept(bench, 2)


def points_of(bench: Bench, episode_id: str) -> list[Point]:
    vector = bench.embedder.embed_windows(["text 0"])[0][0]
    return [Point(episode_id, 0, 1, 1, "s", NOON, dense={CONTENT: vector, CONTEXT: vector})]
