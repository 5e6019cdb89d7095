"""Memories that fade, and recalls that keep them."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.integration.consolidating import SESSION, START, World
from tests.processes import until
from tests.unit.consolidation.blobs import blobs
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.maintenance import fading
from ww_core.maintenance.fading import fade
from ww_core.maintenance.sweep import sweep
from ww_core.models import Episode, Run
from ww_core.recall.strengthening import Strengthener
from ww_core.stores.ports import Where
from ww_workers.jobs import Jobs

YEARS = timedelta(days=3650)


def archived(world: World) -> int:
    return len(world.graph.page(Where(sessions=(SESSION,), archived=True), limit=1000))


def test_what_faded_below_the_threshold_is_archived_and_nothing_is_lost(world: World) -> None:
    rows, truth = blobs(2, 20)
    world.store([f"text {i}" for i in range(len(truth))], rows)
    before = world.graph.counts()
    assert fade(world.graph, threshold=0.2, now=START + timedelta(days=365)).archived == 0
    assert fade(world.graph, threshold=0.0, now=START + 10 * YEARS).archived == 0
    report = fade(world.graph, threshold=0.2, now=START + YEARS)
    assert (report.archived, report.more) == (40, False)
    assert (archived(world), world.graph.counts()) == (40, before)
    assert fade(world.graph, threshold=0.2, now=START + YEARS).archived == 0


def test_a_recalled_episode_outlives_the_others(world: World) -> None:
    rows, truth = blobs(2, 20)
    ids = world.store([f"text {i}" for i in range(len(truth))], rows)
    strengthener = Strengthener(lambda: world.graph, lambda: START + timedelta(days=200))
    strengthener.note(ids[:3])
    strengthener.close()
    row = world.graph.get(ids[:1])[ids[0]]
    assert row.stability > 30
    assert row.last_recalled_at == START + timedelta(days=200)
    fade(world.graph, threshold=0.2, now=START + YEARS)
    assert [e.episode_id for e in world.graph.page(Where(sessions=(SESSION,)), limit=100)] == ids[:3]


def test_a_pass_that_ran_out_of_time_is_continued_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fading, "PAGE", 10)
    rows, truth = blobs(2, 20)
    world.store([f"text {i}" for i in range(len(truth))], rows)
    seconds = iter([0.0, 0.0, 0.0, 99.0])
    cut = fade(world.graph, threshold=0.2, now=START + YEARS, max_seconds=1, clock=lambda: next(seconds))
    assert (cut.archived, cut.more) == (20, True)
    rest = fade(world.graph, threshold=0.2, now=START + YEARS)
    assert (rest.looked_at, rest.archived, rest.more) == (20, 20, False)


class Blocked:
    """A record that does not answer before it is told to."""

    def __init__(self) -> None:
        self.asked, self.go = threading.Event(), threading.Event()

    def get(self, episode_ids: Sequence[str]) -> Mapping[str, Episode]:
        self.asked.set()
        assert self.go.wait(30)
        return {}


def test_noting_a_recall_never_waits_for_the_record() -> None:
    blocked = Blocked()
    strengthener = Strengthener(lambda: blocked, lambda: datetime.now(UTC))  # type: ignore[arg-type, return-value]
    strengthener.note(["a"])
    assert blocked.asked.wait(30)
    strengthener.note(["b"])  # while the thread is stuck
    blocked.go.set()
    strengthener.close()


def test_archived_memories_are_found_by_those_who_ask_for_them(tmp_path: Path) -> None:
    with EpisodicMemory("s", data_dir=tmp_path / "data", recall_strengthens=False) as memory:
        old = memory.sync.store("the old lighthouse by the cliffs").episode_id
        new = memory.sync.store("the new lighthouse in the harbour").episode_id
        memory.sync.flush(timeout=60)
        assert memory.core.deployment.graph.archive([old]) == 1
        found = memory.sync.recall("lighthouse")
        assert [one.episode_id for one in found] == [new]
        assert {one.episode_id for one in memory.sync.recall("lighthouse", archived=None)} == {old, new}
        memory.core.deployment.doorbell.ring()
        graph, vectors = memory.core.deployment.graph, memory.core.deployment.vectors
        until(lambda: vectors.info().get("cold", {}).get("points") == 1, what="the vectors follow the record")
        until(lambda: vectors.count(Where(archived=True)) == 1, what="and are out of the way of what lives")
        assert {one.episode_id for one in memory.sync.recall("lighthouse", archived=True)} == {old}
        assert memory.sync.verify().ok
        assert sweep(graph, vectors, max_attempts=3).orphans == 0
    with EpisodicMemory("s", data_dir=tmp_path / "data", recall_strengthens=False) as memory:
        row = memory.core.deployment.graph.get([old])[old]
        assert (row.archived, row.last_recalled_at) == (True, None), "recalls left no trace"
        assert memory.sync.forget(old).vectors == 1
        assert memory.core.deployment.vectors.info()["cold"]["points"] == 0


def test_an_archived_memory_that_is_recalled_lives_again(tmp_path: Path) -> None:
    with EpisodicMemory("s", data_dir=tmp_path / "data") as memory:
        old = memory.sync.store("the old lighthouse by the cliffs").episode_id
        memory.sync.flush(timeout=60)
        graph, vectors = memory.core.deployment.graph, memory.core.deployment.vectors
        assert graph.archive([old]) == 1
        memory.core.deployment.doorbell.ring()
        until(lambda: vectors.info().get("cold", {}).get("points") == 1, what="its vectors are archived")
        assert not memory.sync.recall("lighthouse").results
        assert [one.episode_id for one in memory.sync.recall("lighthouse", archived=None)] == [old]
        until(lambda: not graph.get([old])[old].archived, what="the recall is recorded")
        assert graph.get([old])[old].last_recalled_at is not None
        until(lambda: vectors.info()["cold"]["points"] == 0, what="its vectors follow, rung for")
        assert [one.episode_id for one in memory.sync.recall("lighthouse")] == [old]
        assert memory.sync.verify().ok


def test_the_task_archives_by_the_setting_and_rings_for_the_payload(tmp_path: Path) -> None:
    class Bells:
        rung = 0

        def embed(self) -> None:
            self.rung += 1

        def consolidate(self, run: Run) -> None:
            raise AssertionError(run)

    later = datetime.now(UTC) + YEARS
    for archive_below, archived in ((0.0, 0), (0.2, 1)):
        deployment = Deployment(Settings(data_dir=tmp_path / "data", archive_below=archive_below))
        if not archived:
            deployment.ingest.store("a word that nobody asks for", session_id="s")
            (claim,) = deployment.graph.claim(1, token="t", lease_seconds=60)
            deployment.graph.mark_embedded("t", {claim.episode.episode_id: 1})
        bells = Bells()
        assert Jobs(deployment, bells).decay(now=later).archived == bells.rung == archived
        deployment.close()
