"""Attempts that ended with their process: counted in the worker's parent, where nobody else is left to do so.

A child that the kernel kills (out of memory), that crashes, or that is killed at its hard time limit counts nothing
itself any more.
"""

from __future__ import annotations

from typing import Any

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import WorkerLost
from ww_core.observability.metrics import process_metrics
from ww_workers.ending import stopping

_timed_out: str | None = None
"""Id of the task that was counted last for its time limit."""


def install() -> None:
    """Count them in every worker of this process."""
    signals.task_failure.connect(_count, weak=False, dispatch_uid="ww-lost")


def _count(sender: Any, task_id: str, exception: BaseException, **_: object) -> None:
    """One failed attempt, published with the figures of this process from now on.

    Other failures are counted where they happen, and a worker that ends kills what it hands back to others.
    """
    if not isinstance(exception, WorkerLostError | TimeLimitExceeded) or stopping() or _again(task_id, exception):
        return
    process_metrics().tried_in_vain(sender.name.removeprefix("ww."), WorkerLost(_what_happened(exception)))
    Deployment.of(Settings()).publish()


def _again(task_id: str, exception: BaseException) -> bool:
    """Celery tells of a hard time limit twice, one right after the other: as an error, and as a time-out."""
    global _timed_out
    again = isinstance(exception, TimeLimitExceeded) and _timed_out == task_id
    _timed_out = task_id if isinstance(exception, TimeLimitExceeded) and not again else None
    return again


def _what_happened(exception: BaseException) -> str:
    if isinstance(exception, TimeLimitExceeded):
        return f"its process was killed at the hard time limit of {exception.args[0]:g} s"
    how = str(exception).removeprefix("Worker exited prematurely: ").partition(" Job: ")[0].rstrip(".")
    return f"its process ended first: {how}{'; was there too little memory?' if 'SIGKILL' in how else ''}"
