"""What a run finds is written beside it: nothing late, and nothing unheard."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.graph_runs.runs import put, start
from tests.contract.graphs import Clock, embed, episodes
from ww_core.consolidation import sink
from ww_core.consolidation.progress import LeaseLost
from ww_core.consolidation.sink import Stage
from ww_core.models import Run
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.embedded.vectors import EdgeVectorStore
from ww_core.stores.ports import VectorStore


@pytest.fixture(autouse=True)
def _written_in_threes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "WRITE", 3)


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[SqliteGraphStore]:
    store = SqliteGraphStore(tmp_path / "graph.db", clock=Clock())
    store.add(episodes(9))
    embed(store)
    yield store
    store.close()


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[VectorStore]:
    store = EdgeVectorStore.open(tmp_path, namespace="ww")
    yield store
    store.close()


def staged(graph: SqliteGraphStore, run: Run) -> int:
    assert graph.publish(replace(run, status="done"), token="t")
    return len(graph.memberships("s"))


def test_all_that_was_put_is_written_when_it_is_flushed(graph: SqliteGraphStore, vectors: VectorStore) -> None:
    run = start(graph)
    stage = Stage(graph, vectors, run.run_id, "t")
    for i in range(8):
        stage.put([put(f"e{i:05}", "c")], {})
    stage.flush()
    stage.close()
    assert (stage.staged, staged(graph, run)) == (8, 8)


def test_what_waits_when_a_run_breaks_off_is_never_written(graph: SqliteGraphStore, vectors: VectorStore) -> None:
    run = start(graph)
    stage = Stage(graph, vectors, run.run_id, "t")
    stage.put([put(f"e{i:05}", "c") for i in range(3)], {})
    stage.put([put("e00003", "c")], {})
    stage.close()
    assert staged(graph, run) in (0, 3)


def test_a_lost_lease_is_heard_of(graph: SqliteGraphStore, vectors: VectorStore) -> None:
    stage = Stage(graph, vectors, start(graph).run_id, "another")
    stage.put([put(f"e{i:05}", "c") for i in range(3)], {})
    with pytest.raises(LeaseLost):
        stage.put([put(f"e{i:05}", "c") for i in range(3, 6)], {})
    stage.close()
