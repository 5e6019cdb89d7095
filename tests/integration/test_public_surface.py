"""What applications import: exact, cheap, and documented where it is used."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ww
from ww.memory.episodic import EpisodicMemory
from ww_core import errors as core_errors

HEAVY = ("torch", "celery", "neo4j", "qdrant_client", "qdrant_edge", "sklearn", "transformers", "numpy", "pydantic")
PROMISED = (
    *("store", "store_batch", "recall", "get", "update", "forget", "list", "sessions", "consolidate", "flush"),
    *("neighbours", "clusters", "runs", "verify"),
)


def test_all_is_exact() -> None:
    promised = "memory Episode Receipt BatchReceipt Recollection Recall Cluster Run Settings hooks errors"
    assert sorted(ww.__all__) == sorted(promised.split())
    for name in ww.__all__:
        assert getattr(ww, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = ww.nothing_here


def test_importing_costs_next_to_nothing() -> None:
    code = f"""
import sys, time
start = time.perf_counter()
import ww
took = time.perf_counter() - start
import json
import os
print(json.dumps([took, [m for m in {HEAVY!r} if m in sys.modules]]))
"""
    best, loaded = 9.9, []
    for _ in range(3):  # the best of three: other work on the machine must not fail this
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        took, loaded = json.loads(done.stdout)
        best = min(best, took)
    assert loaded == []
    assert best < 0.3


def test_importing_the_memory_loads_no_model_and_no_queue() -> None:
    heavy = ("torch", "celery", "neo4j", "qdrant_client", "sklearn", "transformers")
    code = f"""
import sys
from ww import memory, hooks, errors, Episode, Settings
from ww.memory import sync
from ww.memory.episodic import EpisodicMemory
from ww.observability import get_metrics
memory.store, EpisodicMemory(data_dir="/nonexistent"), get_metrics()
print([m for m in {heavy!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_every_name_exists_as_function_method_and_blocking() -> None:
    from ww import memory
    from ww.memory import sync

    assert set(PROMISED) <= set(memory.__all__)
    for name in memory.__all__:
        for home in (memory, EpisodicMemory):
            function = getattr(home, name)
            assert inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function), name
            assert inspect.getdoc(function), name
        blocking = getattr(sync, name)
        assert not inspect.iscoroutinefunction(blocking)
        assert inspect.signature(blocking) == inspect.signature(getattr(memory, name)), name
        method = list(inspect.signature(getattr(EpisodicMemory, name)).parameters)[1:]
        assert list(inspect.signature(getattr(memory, name)).parameters) == method, name


def test_the_signatures_of_the_contract() -> None:
    from ww import memory

    store = inspect.signature(memory.store).parameters
    assert next(iter(store)) == "content"
    assert {"session_id", "timestamp", "context", "outcome", "importance", "episode_id"} <= set(store)
    recall = inspect.signature(memory.recall).parameters
    assert [*recall][:2] == ["query", "session_id"]
    assert recall["limit"].default == 10
    assert [*inspect.signature(memory.consolidate).parameters] == ["session_id", "dry_run", "wait"]
    assert inspect.signature(memory.flush).parameters["timeout"].default == 30


def test_results_are_frozen_dataclasses() -> None:
    for name in ("Episode", "Receipt", "BatchReceipt", "Recollection", "Recall", "Cluster", "Run"):
        kind = getattr(ww, name)
        assert dataclasses.is_dataclass(kind)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(object.__new__(kind), dataclasses.fields(kind)[0].name, None)


def test_a_recollection_has_the_fields_that_recall_prints() -> None:
    named = ["episode_id", "content", "score", "components", "session_id", "timestamp", "context", "outcome", "cluster"]
    assert [f.name for f in dataclasses.fields(ww.Recollection)] == [*named, "fold"]


@pytest.mark.parametrize(
    ("name", "bases"),
    [
        ("InvalidInput", (ValueError,)),
        ("ConfigurationError", ()),
        ("EpisodeConflict", ()),
        ("NotFound", ()),
        ("Busy", ()),
        ("FlushTimeout", (TimeoutError,)),
        ("Unavailable", (ConnectionError,)),
        ("StoreUnavailable", (core_errors.Unavailable,)),
        ("BrokerUnavailable", (core_errors.Unavailable,)),
        ("ModelUnavailable", (core_errors.Unavailable,)),
    ],
)
def test_the_tree_of_errors(name: str, bases: tuple[type, ...]) -> None:
    kind = getattr(ww.errors, name)
    assert issubclass(kind, (ww.errors.WorldWeaverError,))
    for base in bases:
        assert issubclass(kind, base)
    assert str(kind("what", hint="way out")) == "what (way out)"


def test_an_unused_cache_divides_to_not_a_number(tmp_path: Path) -> None:
    code = """
from ww.embedding import get_embedding_service
stats = get_embedding_service().cache_stats()
print(f"{stats['hits'] / stats['total']:.2%}")
"""
    environment = {**os.environ, "T4DM_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120, env=environment
    )
    assert done.stdout.strip() == "nan%"


def test_settings_are_given_by_keyword_object_or_both() -> None:
    settings = ww.Settings(cluster_selection_k=7)
    assert EpisodicMemory(settings=settings).settings is settings
    both = EpisodicMemory(settings=settings, hierarchical_search=True)
    assert (both.settings.cluster_selection_k, both.settings.hierarchical_search) == (7, True)
    with pytest.raises(ww.errors.ConfigurationError, match="cluster_selection_k"):
        EpisodicMemory(cluster_selectoin_k=3)
    with pytest.raises(ww.errors.InvalidInput):
        EpisodicMemory(settings={"cluster_selection_k": 3})  # type: ignore[arg-type]


def test_time_is_never_wasted_on_opening_before_it_is_needed() -> None:
    start = time.perf_counter()
    EpisodicMemory(data_dir="/proc/cannot/be/made")
    assert time.perf_counter() - start < 1
