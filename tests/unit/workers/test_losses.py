"""What a worker's parent counts of tasks that ended otherwise than by their own doing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError

from ww_core.observability import Metrics, process_metrics
from ww_core.observability.metrics import ATTEMPTS, FAILURES
from ww_workers import ending, losses, tasks


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    process_metrics().reset()
    yield process_metrics()
    process_metrics().reset()


def test_nothing_is_counted_that_was_counted_already_or_was_meant_to_end(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for error in (LookupError("counted by the child"), Terminated(15)):
        losses._count(tasks.sweep, "1", error)
    (tmp_path / "stop").touch()
    monkeypatch.setenv(ending.STOP_VARIABLE, str(tmp_path / "stop"))
    losses._count(tasks.sweep, "1", WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL) Job: 1."))
    assert (metrics.total(ATTEMPTS), metrics.total(FAILURES)) == (0, 0)


def test_a_time_limit_is_told_twice_and_counted_once(metrics: Metrics) -> None:
    for task_id in ("1", "1", "2", "2", "2", "2"):
        losses._count(tasks.sweep, task_id, TimeLimitExceeded(9))
    assert metrics.total(FAILURES) == 3, "the second task was begun again, and killed again"


@pytest.mark.parametrize(
    ("said", "how"),
    [
        ("Worker exited prematurely: signal 11 (SIGSEGV) Job: 12.", "signal 11 (SIGSEGV)"),
        ("Worker exited prematurely: exitcode 1.", "exitcode 1"),
        ("something new", "something new"),
    ],
)
def test_how_the_process_ended_is_said(said: str, how: str) -> None:
    assert losses._what_happened(WorkerLostError(said)) == f"its process ended first: {how}"
