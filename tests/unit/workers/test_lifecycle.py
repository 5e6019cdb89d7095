"""What a worker's children learn from their parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import ROOT, run_python
from ww_core.stores.ports import Queue
from ww_workers import ending, lifecycle

CHILD = """
import os
from threadpoolctl import threadpool_info
os.cpu_count = lambda: 8
import numpy
from ww_workers import lifecycle
lifecycle._share_cores(lifecycle.consumed())
print(*{pool["num_threads"] for pool in threadpool_info()})
"""


def test_children_that_only_calculate_share_the_cores(tmp_path: Path) -> None:
    variables = {"WW_WORKER_QUEUES": "ww.consolidate", "WW_WORKER_CHILDREN": "8", "OPENBLAS_NUM_THREADS": "4"}
    assert set(run_python(CHILD, cwd=tmp_path, PYTHONPATH=str(ROOT), **variables).split()) == {"1"}


def test_a_child_stops_when_its_parent_says_so_or_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = tmp_path / "stop"
    monkeypatch.setenv(ending.STOP_VARIABLE, str(stop))
    assert not ending.stopping()
    stop.touch()
    assert ending.stopping()
    stop.unlink()
    monkeypatch.setattr(ending, "_parent", 1_000_000_000)
    assert ending.stopping()


def test_a_worker_sweeps_on_a_queue_that_it_consumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lifecycle.QUEUES_VARIABLE, "ww.query,ww.consolidate")
    assert lifecycle.consumed() == {Queue.QUERY, Queue.CONSOLIDATE}
    assert next(queue for queue in lifecycle.SWEEPING_QUEUES if queue in lifecycle.consumed()) is Queue.CONSOLIDATE
