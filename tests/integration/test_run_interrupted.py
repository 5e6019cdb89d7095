"""A run that is interrupted at an awkward moment holds nothing any more, and is lost to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.integration.consolidating import SESSION, World
from tests.unit.consolidation.blobs import blobs
from ww_core.consolidation import service
from ww_core.consolidation.progress import ShutDown
from ww_core.stores.embedded.graph import history, runs
from ww_core.stores.routing import Cells

WINDOW = "3600s-1"


@pytest.fixture
def full(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    rows, _ = blobs(3, 20)
    world.store([f"text {i}" for i in range(len(rows))], rows)
    yield world
    world.close()


def interrupt(*args: Any, **fields: Any) -> bool:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("place", "name", "status"),
    [
        (runs, "clear_leftovers", "requested"),
        (history, "settle_fresh", "done"),
        (service, "write_leftovers", "done"),
        (Cells, "write", "done"),
    ],
)
def test_an_interrupted_run_leaves_its_session_to_others(
    place: Any, name: str, status: str, full: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = full.graph.request_run(SESSION)
    with monkeypatch.context() as patch:
        patch.setattr(place, name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            full.consolidator.run(run.run_id, token=uuid4().hex)
    assert full.graph.run(run.run_id).status == status
    following = full.graph.request_run(SESSION)
    assert full.consolidator.run(following.run_id, token=uuid4().hex).status == "done"


@pytest.mark.parametrize(("window", "status"), [(None, "cancelled"), (WINDOW, "requested")])
def test_an_interruption_cancels_what_the_schedule_did_not_ask_for(
    window: str | None, status: str, full: World
) -> None:
    run = full.graph.request_run(SESSION, window=window)
    with pytest.raises(KeyboardInterrupt):
        full.consolidator.run(run.run_id, token=uuid4().hex, should_stop=interrupt)
    assert full.graph.run(run.run_id).status == status


def test_a_shutdown_behind_the_publication_does_not_take_the_answer_away(full: World) -> None:
    run = full.graph.request_run(SESSION)

    def should_stop() -> bool:
        if full.graph.run(run.run_id).status == "done":
            raise ShutDown
        return False

    assert full.consolidator.run(run.run_id, token=uuid4().hex, should_stop=should_stop).status == "done"
