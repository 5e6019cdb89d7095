"""The background of a deployment without a broker."""

from __future__ import annotations

from contextlib import suppress

from ww_core.deployment import Deployment
from ww_core.errors import WorldWeaverError
from ww_core.models import Run
from ww_workers.accounting import counted
from ww_workers.dispatcher import Dispatcher
from ww_workers.jobs import ENDED
from ww_workers.runtime import Runtime


class LocalRuntime(Runtime):
    """A dispatcher, started by ``start``: whoever only rings makes no thread."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.dispatcher = Dispatcher(deployment)
        self.doorbell = _Bell(self.dispatcher)

    @property
    def outage(self) -> str:
        return self.dispatcher.outage

    def start(self) -> None:
        self.dispatcher.start()

    def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run:
        """In the caller's thread; with ``wait`` 0 on the dispatcher's. A run under way elsewhere is waited for.

        Ctrl-C and the like cancel the run, but not one that the schedule asked for or another process works on.
        """
        jobs = self.dispatcher.jobs
        if dry_run:
            with counted("ww.consolidate"):
                return jobs.consolidate(session_id, dry_run=True)
        jobs.make_room()  # a run that a killed process left is the one to go on with
        run = self.deployment.graph.request_run(session_id)
        if wait is not None and wait <= 0:
            self.dispatcher.consolidate(run)
            return run
        with counted("ww.consolidate"):
            run = jobs.consolidate(session_id, run_id=run.run_id)
        if run.status in ENDED:
            return run
        self.dispatcher.consolidate(run)  # again, once the other one is over
        try:
            return self.wait_for(run, wait, at_most=2 * self.deployment.settings.consolidation_time_limit)
        except Exception:
            raise
        except BaseException:
            self._cancel(run)
            raise

    def _cancel(self, run: Run) -> None:
        graph = self.deployment.graph
        with suppress(WorldWeaverError):
            here = self.dispatcher.works_on == run.run_id or graph.run(run.run_id).status == "requested"
            if here and run.window is None:
                graph.cancel_run(run.run_id)

    def close(self) -> None:
        super().close()
        self.dispatcher.close()


class _Bell:
    """The dispatcher as the deployment's doorbell."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.ring = dispatcher.ring

    def close(self) -> None:
        return None
