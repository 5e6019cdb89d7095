"""Background work done at once, in the thread that asks for it: for tests of applications."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ww_core.deployment import Deployment
from ww_core.errors import InvalidInput
from ww_core.maintenance.drain import DrainReport
from ww_core.models import Receipt, Run
from ww_workers import process
from ww_workers.canvas import at_once
from ww_workers.jobs import Jobs
from ww_workers.runtime import Runtime

LONGEST_SECONDS = 600.0
"""Of one drain: whoever stores in a test wants all of it embedded."""


class EagerRuntime(Runtime):
    """Embeds when it is rung. What rings while work is done is done after it, by the outermost call of the thread."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.jobs = _EagerJobs(deployment, self)
        self.doorbell = self
        self._here = threading.local()
        self._working = threading.RLock()

    # -- doorbell and bells

    def ring(self) -> None:
        self.embed()

    def embed(self) -> None:
        with self.outermost():
            self._here.wanted = True

    def consolidate_later(self, run: Run) -> None:
        with self.outermost():
            self._here.runs.append(run)

    @contextmanager
    def outermost(self) -> Iterator[None]:
        """Do what was rung for within the block at its end, unless the block lies within another one."""
        here = self._here
        if getattr(here, "inside", False):
            yield
            return
        here.inside, here.wanted, here.runs = True, False, deque()
        try:
            yield
            with self._working:
                while here.wanted or here.runs:
                    if here.wanted:
                        here.wanted = False
                        self.jobs.embed_pending(max_seconds=LONGEST_SECONDS)
                    else:
                        run = here.runs.popleft()
                        self.jobs.consolidate(run.session_id, run_id=run.run_id)
        finally:
            here.inside = False

    # -- runtime

    def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run:
        return self.jobs.consolidate(session_id, dry_run=dry_run)


class _Bells:
    def __init__(self, runtime: EagerRuntime) -> None:
        self.embed = runtime.embed
        self.consolidate = runtime.consolidate_later


class _EagerJobs(Jobs):
    """Jobs whose rings are answered before they return; a text that fails is tried again without delay."""

    def __init__(self, deployment: Deployment, runtime: EagerRuntime) -> None:
        super().__init__(deployment, _Bells(runtime), retry_seconds=0.0)
        self._runtime = runtime

    def embed_pending(self, **options: Any) -> DrainReport:
        with self._runtime.outermost():
            return super().embed_pending(**options)

    def store(self, **fields: Any) -> Receipt:
        with self._runtime.outermost():
            return super().store(**fields)

    def consolidate_due(self, now: Any = None) -> list[Run]:
        with self._runtime.outermost():
            return super().consolidate_due(now)

    def sweep(self, **options: Any) -> Any:
        with self._runtime.outermost():
            return super().sweep(**options)


@contextmanager
def eagerly(deployment: Deployment) -> Iterator[EagerRuntime]:
    """Within the block the deployment's background work, the tasks of this package, and every ``send_task("ww.*")`` of
    any Celery app of the process, alone or in a canvas, are done at once, on this deployment and without a network."""
    runtime = EagerRuntime(deployment)
    runtime.install()
    try:
        with _tasks_on(runtime.jobs):
            yield runtime
    finally:
        runtime.close()


@contextmanager
def _tasks_on(jobs: Jobs) -> Iterator[None]:
    from celery import Celery

    import ww_workers.tasks  # noqa: F401 - the app knows its tasks from here on
    from ww_workers.app import app

    before = {name: app.conf[name] for name in ("task_always_eager", "task_eager_propagates")}
    send_task = Celery.send_task
    Celery.send_task = _sending(app, send_task)
    app.conf.update(task_always_eager=True, task_eager_propagates=False)
    process.replace(jobs)
    try:
        with at_once(app):
            yield
    finally:
        process.restore(jobs)
        app.conf.update(before)
        Celery.send_task = send_task


def _sending(ours: Any, send_task: Callable[..., Any]) -> Callable[..., Any]:
    def send(app: Any, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        if name.startswith("ww."):
            if name not in ours.tasks:
                known = ", ".join(sorted(task for task in ours.tasks if task.startswith("ww.")))
                raise InvalidInput(f"no task {name!r}", hint=f"the tasks are {known}")
            return ours.tasks[name].apply_async(args, kwargs, task_id=options.get("task_id"))
        return send_task(app, name, args, kwargs, *rest, **options)

    return send
