"""How far a task is, for Flower and for whoever holds its result."""

from __future__ import annotations

from typing import Any

from ww_workers.producer import BROKER_ERRORS

STEP = 0.05
"""Progress is told in steps of this share: a long run has thousands of its own."""


class Progress:
    """Called with a share from 0 to 1. A broker that is away is none of the run's business."""

    def __init__(self, task: Any) -> None:
        self._task = task
        self._id = task.request.id  # a callback on another thread has no request
        self._next = 0.0

    def __call__(self, share: float) -> None:
        if share < self._next or self._id is None:
            return
        self._next = share + STEP
        meta = {"progress": round(share, 2)}
        try:
            self._task.update_state(task_id=self._id, state="PROGRESS", meta=meta)
            self._task.send_event("task-progress", retry=False, **meta)
        except BROKER_ERRORS:
            self._next = 2.0  # not told again: each attempt would hold the run up
