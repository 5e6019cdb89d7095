"""What the tasks of this process work on: the jobs of the default settings, or what a test put in their place."""

from __future__ import annotations

import os

from billiard.exceptions import SoftTimeLimitExceeded

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_workers.jobs import Bells, Jobs


class _Process:
    """The jobs of this process, on the default settings, made when first needed and again in a forked child."""

    def __init__(self) -> None:
        self.jobs: Jobs | None = None
        self.pid = 0
        self.replaced: list[Jobs] = []


_process = _Process()


def jobs() -> Jobs:
    """What the tasks of this process work on.

    Raises ConfigurationError where the application's hooks cannot be imported: without them nothing may be stored.
    """
    if _process.replaced:
        return _process.replaced[-1]
    if _process.jobs is None or _process.pid != os.getpid():
        deployment = Deployment.of(Settings())
        deployment.hooks.load(deployment.settings.hooks)
        deployment.acquire()
        _process.jobs = Jobs(deployment, _bells(deployment), interruptions=(SoftTimeLimitExceeded,))
        _process.pid = os.getpid()
    return _process.jobs


def replace(replacement: Jobs) -> None:
    """Let the tasks of this process work on something else, until ``restore``."""
    _process.replaced.append(replacement)


def restore(replacement: Jobs) -> None:
    _process.replaced.remove(replacement)


def close() -> None:
    """Send what was rung, and close the stores of this process."""
    found, _process.jobs = _process.jobs, None
    if found is None or _process.pid != os.getpid():
        return
    if found.deployment.settings.redis_url is not None:
        found.deployment.doorbell.close()
    if found.deployment.release():
        found.deployment.close()


def _bells(deployment: Deployment) -> Bells:
    if deployment.settings.redis_url is None:
        from ww_workers.local import LocalRuntime
        from ww_workers.runtimes import runtime_of

        runtime = runtime_of(deployment)
        assert isinstance(runtime, LocalRuntime)  # noqa: S101 - what it is where there is no broker
        runtime.start()
        return runtime.dispatcher
    from ww_workers.producer import RedisBells

    bells = RedisBells(deployment.settings)
    deployment.doorbell = bells.doorbell
    return bells
