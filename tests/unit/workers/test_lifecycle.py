"""What a worker's children learn from their parent."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.processes import BOUND, ROOT, clean_environment, run_python, until
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

DEAF = """
import signal, subprocess, sys
from ww_workers import ending
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=subprocess.DEVNULL).pid, flush=True)
ending._forced = True
ending._force()
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


@pytest.fixture
def alarmed() -> Iterator[None]:
    """SIGALRM as a worker's main process handles it."""
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)  # the time limit of this test
    before = signal.signal(signal.SIGALRM, ending._force)
    yield
    signal.signal(signal.SIGALRM, before)
    signal.setitimer(signal.ITIMER_REAL, left)


@pytest.mark.usefixtures("alarmed")
def test_children_are_told_though_their_directory_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ending.STOP_VARIABLE, str(tmp_path / "gone" / "stop"))
    ending._tell()
    assert ending.stopping()
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= ending.SOFT_SHUTDOWN_SECONDS
    ending._tidy()
    assert (list(tmp_path.iterdir()), signal.getitimer(signal.ITIMER_REAL)) == ([], (0, 0))
    ending._tell()
    assert (list(tmp_path.iterdir()), signal.getitimer(signal.ITIMER_REAL)) == ([], (0, 0)), "it is over"


@pytest.mark.usefixtures("alarmed")
def test_a_worker_that_can_tell_nobody_is_ended_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(ending.STOP_VARIABLE, str(tmp_path / "file" / "stop"))
    ending._tell()
    assert not ending.stopping()
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 0


def test_who_is_ended_by_force_leaves_no_child_behind() -> None:
    environment = clean_environment(PYTHONPATH=str(ROOT))
    ended = subprocess.run([sys.executable, "-c", DEAF], env=environment, capture_output=True, text=True, timeout=BOUND)
    assert ended.returncode == ending.FAILED, ended.stderr
    until(lambda: not _lives(int(ended.stdout)), what="its child is gone as well")


def _lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def test_a_worker_sweeps_on_a_queue_that_it_consumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lifecycle.QUEUES_VARIABLE, "ww.query,ww.consolidate")
    assert lifecycle.consumed() == {Queue.QUERY, Queue.CONSOLIDATE}
    assert next(queue for queue in lifecycle.SWEEPING_QUEUES if queue in lifecycle.consumed()) is Queue.CONSOLIDATE
