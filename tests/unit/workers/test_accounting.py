"""Every run of a task is one attempt, and one failure where it fails; episodes are counted by what embeds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Reject

from ww_core.config import Settings
from ww_core.consolidation.progress import ShutDown
from ww_core.deployment import Deployment
from ww_core.errors import InvalidInput, StoreUnavailable
from ww_core.observability import Metrics, process_metrics
from ww_core.observability.metrics import ATTEMPTS, FAILURES
from ww_workers import tasks
from ww_workers.accounting import counted
from ww_workers.eager import EagerRuntime, eagerly
from ww_workers.local import LocalRuntime


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    process_metrics().reset()
    yield process_metrics()
    process_metrics().reset()


@pytest.fixture
def runtime(metrics: Metrics, quick_path: Path) -> Iterator[EagerRuntime]:
    deployment = Deployment(Settings(data_dir=quick_path))
    with eagerly(deployment) as made:
        yield made
    deployment.close()


def found(metrics: Metrics) -> tuple[int, int]:
    return metrics.total(ATTEMPTS), metrics.total(FAILURES)


def breaking(error: BaseException) -> Any:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    return broken


@pytest.mark.parametrize(
    ("task", "job", "kwargs"),
    [
        ("consolidate", "consolidate", {"session_id": "s"}),
        ("consolidate_due", "consolidate_due", {}),
        ("embed_query", "embed_query", {"text": "what"}),
        ("embed_pending", "embed_pending", {}),
        ("store", "store", {"content": "text"}),
        ("sweep", "sweep", {}),
        ("verify", "verify", {}),
        ("decay", "decay", {}),
        ("alerts", "check_alerts", {}),
    ],
)
def test_a_task_that_fails_is_an_attempt_and_a_failure(
    runtime: EagerRuntime,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    job: str,
    kwargs: dict[str, Any],
) -> None:
    monkeypatch.setattr(runtime.jobs, job, breaking(StoreUnavailable("away")))
    assert getattr(tasks, task).apply(kwargs=kwargs).failed()
    assert found(metrics) == (1, 1)
    assert [(one.action, one.error) for one in metrics.errors.latest()] == [(task, "StoreUnavailable: away")]


def test_a_task_that_succeeds_is_an_attempt_and_a_mistake_of_its_sender_no_failure(
    runtime: EagerRuntime, metrics: Metrics
) -> None:
    assert tasks.sweep.apply().successful()
    assert tasks.verify.apply().get()["ok"]
    assert tasks.embed_query.apply(kwargs={"text": 7}).failed()
    assert found(metrics) == (3, 0)


def test_a_store_by_task_is_counted_once_and_so_is_its_failure(
    runtime: EagerRuntime, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "embed", lambda: None)
    assert tasks.store.apply(kwargs={"content": "text"}).successful()
    assert found(metrics) == (1, 0)
    monkeypatch.setattr(type(runtime.deployment.graph), "add", breaking(StoreUnavailable("away")))
    assert tasks.store.apply(kwargs={"content": "text"}).failed()
    assert found(metrics) == (2, 1)


def test_memory_that_ran_out_is_counted_by_what_becomes_of_it(
    runtime: EagerRuntime, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.jobs, "sweep", breaking(MemoryError()))
    assert tasks.sweep.apply().failed()
    assert found(metrics) == (1, 1)


@pytest.mark.parametrize("error", [Reject("ends"), ShutDown()])
def test_a_task_that_others_go_on_with_has_not_been_tried(metrics: Metrics, error: BaseException) -> None:
    with pytest.raises(type(error)), counted("ww.verify", passing=(Reject,)):
        raise error
    assert found(metrics) == (0, 0)


def test_without_a_broker_the_dispatchers_tasks_count_as_well(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch, quick_path: Path
) -> None:
    deployment = Deployment(Settings(data_dir=quick_path))
    deployment.ingest.store({"content": "text", "session_id": "s"})
    metrics.reset()
    runtime = LocalRuntime(deployment)
    try:
        runtime.dispatcher._chore()
        attempts, failures = found(metrics)
        assert attempts >= 1
        assert failures == 0
        with pytest.raises(InvalidInput), counted("ww.consolidate"):
            raise InvalidInput("no session")
        assert found(metrics) == (attempts + 1, 0)
        monkeypatch.setattr(runtime.dispatcher.jobs, "consolidate", breaking(StoreUnavailable("away")))
        with pytest.raises(StoreUnavailable):
            runtime.consolidate("s")
        assert found(metrics) == (attempts + 2, 1)
        runtime.consolidate("s", wait=0)
        runtime.dispatcher._chore()
        assert found(metrics)[1] == 2
    finally:
        runtime.close()
        deployment.close()
