"""Background work in the process of the application."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.processes import BOUND, ROOT, clean_environment, run_python, until
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.deployment import GRAPH_FILE, Deployment
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_workers.jobs import Jobs
from ww_workers.runtimes import runtime_of

LONG = "A long text about the weather and the sea that takes the model some time. " * 25


class Bells:
    """Remembers who was rung for."""

    def __init__(self) -> None:
        self.embeds = 0
        self.runs: list[str] = []

    def embed(self) -> None:
        self.embeds += 1

    def consolidate(self, run: object) -> None:
        self.runs.append(run.run_id)  # type: ignore[attr-defined]


@pytest.fixture
def memory(quick_path: Path) -> Iterator[EpisodicMemory]:
    made = EpisodicMemory(session_id="s", data_dir=quick_path, consolidation_interval=3600)
    yield made
    made.close()


def test_what_is_stored_becomes_findable_without_anybody_asking(memory: EpisodicMemory) -> None:
    receipt = memory.sync.store("The cat sat on the mat.")
    until(lambda: memory.sync.get(receipt.episode_id).state == "embedded", what="embedded")
    assert memory.sync.recall("where did the cat sit").results[0].episode_id == receipt.episode_id
    assert memory.sync.verify().ok


def test_closing_in_the_middle_hands_back_what_is_leased_within_five_seconds(memory: EpisodicMemory) -> None:
    memory.sync.store_batch([f"{i} {LONG}" for i in range(400)])
    until(lambda: memory.sync.counts().embedded > 0, what="the first step is done")
    started = time.monotonic()
    memory.close()
    assert time.monotonic() - started < 6
    counts = memory.sync.counts()
    assert counts.embedded + counts.pending + counts.leased == 400
    memory.close()
    graph = SqliteGraphStore(memory.settings.data_dir / GRAPH_FILE)
    try:
        assert graph.counts().leased == 0
        assert graph.counts().pending > 0
    finally:
        graph.close()


def test_a_process_that_ends_by_itself_hands_back_what_is_leased(quick_path: Path) -> None:
    script = f"""
import sys
from tests.processes import until
from ww.memory.episodic import EpisodicMemory
m = EpisodicMemory(data_dir=sys.argv[1])
m.sync.store_batch([str(i) + {LONG!r} for i in range(400)])
until(lambda: m.sync.counts().embedded > 0)
"""
    run_python(script, str(quick_path), cwd=quick_path, PYTHONPATH=str(ROOT))
    graph = SqliteGraphStore(quick_path / GRAPH_FILE)
    try:
        counts = graph.counts()
        assert (counts.leased, counts.dead) == (0, 0)
        assert counts.embedded > 0
        assert counts.embedded + counts.pending == 400
    finally:
        graph.close()


def test_a_process_that_ends_waits_for_work_that_does_not_listen(quick_path: Path) -> None:
    script = """
import sys, threading, time
from ww.memory.episodic import EpisodicMemory
from ww_workers import dispatcher
dispatcher.STOP_SECONDS = 0.2
begun = threading.Event()
def embed(self):
    begun.set()
    time.sleep(1)  # work that does not look whether it is to end
    print("done", flush=True)
    return 60.0
dispatcher.Dispatcher._embed = embed
memory = EpisodicMemory(data_dir=sys.argv[1])
memory.sync.store("something")
begun.wait()
"""
    assert run_python(script, str(quick_path), cwd=quick_path, PYTHONPATH=str(ROOT)).strip() == "done"


def test_a_killed_process_loses_nothing_and_the_next_one_goes_on(quick_path: Path) -> None:
    script = f"""
import sys
from ww.memory.episodic import EpisodicMemory
m = EpisodicMemory(data_dir=sys.argv[1], embedding_lease=1)
m.sync.store_batch([str(i) + {LONG[:200]!r} for i in range(120)])
print("stored", flush=True)
m.sync.flush(timeout=600)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(quick_path)],
        cwd=quick_path,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"stored\n"
    graph = SqliteGraphStore(quick_path / GRAPH_FILE)
    try:
        until(lambda: graph.counts().leased > 0, what="a claim")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert graph.counts().leased > 0
    finally:
        graph.close()
    with EpisodicMemory(data_dir=quick_path, embedding_lease=1) as memory:
        memory.sync.flush(timeout=BOUND)
        assert memory.sync.counts().embedded == 120
        assert memory.sync.verify().ok


def test_a_forked_child_has_a_dispatcher_of_its_own(memory: EpisodicMemory) -> None:
    memory.sync.store("before the fork")
    memory.sync.flush(timeout=BOUND)
    script = """
import os, sys
from ww.memory.episodic import EpisodicMemory
m = EpisodicMemory(data_dir=sys.argv[1])
m.sync.store("in the parent")
m.sync.flush(timeout=80)
child = os.fork()
if child == 0:
    m.sync.store("in the child")
    m.sync.flush(timeout=80)
    m.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
m.sync.store("in the parent again")
m.sync.flush(timeout=80)
assert m.sync.counts().embedded == 4, m.sync.counts()
assert m.sync.verify().ok
"""
    directory = memory.settings.data_dir
    memory.close()
    run_python(script, str(directory), cwd=directory, PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore")


def test_consolidation_without_waiting_is_done_by_the_dispatcher(memory: EpisodicMemory) -> None:
    topics = ["nightly backup failed", "coffee machine is broken", "holiday request approved"]
    memory.sync.store_batch([f"{topics[i % 3]} on day {i}" for i in range(45)])
    memory.sync.flush(timeout=BOUND)
    run = memory.sync.consolidate("s", wait=0)
    assert run.status == "requested"
    until(lambda: memory.sync.clusters("s"), what="clusters")
    done = next(r for r in memory.sync.runs("s") if r.run_id == run.run_id)
    assert (done.status, done.considered) == ("done", 45)


def test_one_run_per_session_and_window_however_often_beat_rings(memory: EpisodicMemory) -> None:
    memory.sync.store_batch([f"text {i}" for i in range(5)])
    memory.sync.flush(timeout=BOUND)
    deployment = Deployment.of(memory.settings)
    bells = Bells()
    jobs = Jobs(deployment, bells)
    now = datetime.now(UTC) + timedelta(hours=2)
    first = jobs.consolidate_due(now)
    again = jobs.consolidate_due(now)
    assert [run.run_id for run in first] == [run.run_id for run in again] == bells.runs[:1]
    done = jobs.consolidate("s", run_id=first[0].run_id)
    assert done.status == "done"
    assert jobs.consolidate("s", run_id=first[0].run_id).run_id == done.run_id
    assert len(deployment.graph.runs("s")) == 1
    assert jobs.consolidate_due(now) == []


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(Settings(data_dir=tmp_path / "record", consolidation_min_new=3, consolidation_in_flight=2))
    yield deployment
    deployment.close()


def embedded(record: Deployment, session: str, count: int) -> None:
    record.ingest.store_batch([{"content": f"text {i}", "session_id": session} for i in range(count)])
    claims = record.graph.claim(count, token=session, lease_seconds=60)
    record.graph.mark_embedded(session, {claim.episode.episode_id: 1 for claim in claims})


DYING = """
import os, sys
from pathlib import Path
from ww_core.stores.embedded.graph import SqliteGraphStore
assert len(SqliteGraphStore(Path(sys.argv[1])).claim(10, token="t", lease_seconds=3600)) == 4
os._exit(0)
"""


def test_who_finds_nothing_to_claim_frees_what_the_dead_hold_and_rings(record: Deployment, tmp_path: Path) -> None:
    record.ingest.store_batch([{"content": f"text {i}", "session_id": "s"} for i in range(4)])
    bells = Bells()
    jobs = Jobs(record, bells)
    run_python(DYING, str(record.settings.data_dir / GRAPH_FILE), cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert not record.graph.has_work()
    assert (jobs.embed_pending().more, bells.embeds) == (True, 1)
    assert record.graph.has_work()


def test_scheduled_runs_are_handed_out_a_few_at_a_time_oldest_first(record: Deployment) -> None:
    for name in ("b", "a", "d", "c"):
        embedded(record, name, 3)
    bells = Bells()
    jobs = Jobs(record, bells)
    now = datetime.now(UTC)
    runs = jobs.consolidate_due(now)
    assert [run.session_id for run in runs] == ["b", "a", "d", "c"]
    assert bells.runs == [run.run_id for run in runs[:2]]
    record.graph.start_run(runs[0].run_id, token="t", lease_seconds=60)
    jobs.sweep()
    assert bells.runs[2:] == [runs[1].run_id], "one is running, so one more may be"
    record.graph.finish_run(replace(runs[0], status="done"), token="t")
    jobs.sweep()
    assert bells.runs[3:] == [runs[1].run_id, runs[2].run_id]


def test_a_session_with_little_that_is_new_waits_for_more_but_not_for_ever(record: Deployment) -> None:
    embedded(record, "s", 2)
    jobs = Jobs(record, Bells())
    now = datetime.now(UTC)
    assert jobs.consolidate_due(now) == []
    assert len(jobs.consolidate_due(now + timedelta(hours=25))) == 1


def test_a_beat_that_slept_or_came_twice_asks_for_one_run(record: Deployment) -> None:
    embedded(record, "s", 5)
    now = datetime.now(UTC).replace(minute=30)
    for beat in (Jobs(record, Bells()), Jobs(record, Bells())):
        beat.consolidate_due(now)
        beat.consolidate_due(now + timedelta(minutes=1))
        beat.consolidate_due(now + timedelta(hours=7))  # while the first still waits
    assert len(record.graph.runs("s")) == 1


def test_the_runtime_of_a_deployment_is_one_until_it_is_closed(memory: EpisodicMemory) -> None:
    deployment = Deployment.of(memory.settings)
    runtime = runtime_of(deployment)
    assert runtime_of(deployment) is runtime
    assert deployment.doorbell is runtime.doorbell
    runtime.close()
    assert runtime_of(deployment) is not runtime
    runtime_of(deployment).close()
