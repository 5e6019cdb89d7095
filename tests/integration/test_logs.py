"""What is logged at the usual levels: actions, ids and durations, never an episode's text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.unit.maintenance.conftest import Bench
from ww.memory.episodic import EpisodicMemory
from ww_core.hooks import Hooks
from ww_core.models import Episode
from ww_core.observability.metrics import Metrics

MARK = "quagga-4711"
PACKAGES = ("ww", "ww_core", "ww_workers")


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """At INFO, whatever a command line in this process has set before."""
    for name in PACKAGES:
        logger = logging.getLogger(name)
        caplog.set_level(logging.INFO, logger=name)
        monkeypatch.setattr(logger, "handlers", [caplog.handler])
        monkeypatch.setattr(logger, "propagate", False)


def test_no_text_of_an_episode_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with EpisodicMemory(session_id="zoo", data_dir=tmp_path) as memory:
        kept = memory.sync.store(f"The {MARK} was fed")
        memory.sync.store_batch([f"The {MARK} slept on day {day}" for day in range(30)])
        memory.sync.flush(timeout=90)
        memory.sync.consolidate("zoo")
        memory.sync.recall(f"where is the {MARK}")
        memory.sync.update(kept.episode_id, content=f"The {MARK} was fed twice")
        memory.sync.forget(kept.episode_id)
    actions = {getattr(record, "action", ""): record.__dict__ for record in caplog.records}
    assert {"drain.done", "consolidation.done", "erase"} <= actions.keys(), "what happens is logged"
    assert all(actions[timed]["seconds"] >= 0 for timed in ("drain.done", "consolidation.done"))
    assert actions["consolidation.done"]["session_id"] == "zoo"
    assert MARK not in str([record.__dict__ for record in caplog.records])


def test_a_hook_that_stumbles_over_a_text_is_told_by_its_place_and_kind(caplog: pytest.LogCaptureFixture) -> None:
    registry = Hooks(metrics=Metrics())

    def look(episode: Episode) -> None:
        raise KeyError(episode.content)

    registry.add("before_store", look)
    registry.apply("before_store", Episode(f"The {MARK} was weighed"))
    (record,) = (record for record in caplog.records if getattr(record, "action", "") == "hook.failed")
    assert "KeyError (what it says is not logged)" in record.getMessage()
    assert f'File "{__file__}"' in record.getMessage()
    assert MARK not in str([record.__dict__ for record in caplog.records])


def test_a_text_that_fails_is_named_by_its_id_alone(quick_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(quick_path)

    def refuse(texts: Sequence[str]) -> None:
        if any(MARK in text for text in texts):
            raise RuntimeError("a token is not known")

    bench.embedder.before = refuse
    bench.store(f"The {MARK} cannot be encoded", "The zebra can")
    bench.drain().run()
    bench.close()
    assert any(getattr(record, "action", "") == "drain.text_failed" for record in caplog.records)
    assert MARK not in str([record.__dict__ for record in caplog.records])
