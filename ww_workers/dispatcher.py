"""Background work without a broker: the tasks of the workers, on two threads of this process, on the same schedule."""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from ww_core.consolidation.progress import ShutDown
from ww_core.deployment import Deployment
from ww_core.errors import WorldWeaverError
from ww_core.maintenance.fading import DECAY_SECONDS
from ww_core.models import Run
from ww_workers.accounting import counted
from ww_workers.jobs import Jobs
from ww_workers.loops import Loop

log = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0
FIRST_SWEEP_SECONDS = 1.0  # a process that lives shorter has nothing to gain from it
DUE_FACT = "consolidate_due.at"
DECAY_FACT = "decay.at"
STOP_SECONDS = 5.0
EXIT_SECONDS = 30.0  # more, where the process ends with it
WRITING_SECONDS = 0.1
"""Whoever rang this short a time ago is still storing."""
SHIFT_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 10.0


class Dispatcher:
    """Embeds on one thread and does everything else on another, so that a long consolidation holds up nothing.

    It is the doorbell of this process, and the bells of its own jobs. It yields to writers, and at exit it finishes the
    step under way within 5 s and gives its leases back.
    """

    def __init__(self, deployment: Deployment, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs = Jobs(deployment, self)
        self._deployment = deployment
        self._clock = clock
        self._rang = -WRITING_SECONDS
        self._wanted = False
        self._runs: OrderedDict[str, Run] = OrderedDict()
        self._lock = threading.Lock()
        self._embedding = Loop(self._embed, name="ww-embed")
        self._chores = Loop(self._chore, name="ww-chores", first=FIRST_SWEEP_SECONDS)
        self._next_sweep = clock()
        self._next_alerts = clock() + deployment.settings.alert_interval
        self._look = 0.0
        self._started = False
        self.outage = ""
        """Why nothing could be embedded lately, in one line; empty where all is well."""
        self.works_on: str | None = None
        """The run that is carried out just now."""
        _running.add(self)

    # -- the doorbell

    def ring(self) -> None:
        """Somebody stored something."""
        self._rang = self._clock()
        self.embed()

    # -- the bells

    def embed(self) -> None:
        if not self._wanted:
            self._wanted = True
            self._embedding.wake()

    def consolidate(self, run: Run) -> None:
        with self._lock:
            self._runs[run.run_id] = run
        self._chores.wake()

    # -- life

    def start(self) -> None:
        """Start the threads; what an earlier process left pending is picked up at once."""
        with self._lock:
            if self._started:
                return
            self._started = True
        self._deployment.watch_stores()
        self._embedding.start()
        self._chores.start()

    def close(self) -> None:
        """Stop within STOP_SECONDS; what is in flight is finished or given back."""
        deadline = time.monotonic() + STOP_SECONDS
        self._embedding.stop()
        self._chores.stop()
        if not (self._embedding.join(deadline) and self._chores.join(deadline)):
            log.warning("background work did not stop in time", extra={"action": "dispatcher.stop"})
        _running.discard(self)

    # -- the work

    def _writing(self) -> bool:
        return self._clock() - self._rang < WRITING_SECONDS

    def _embed(self) -> float:
        # cleared before the first claim: what is stored from here on rings again
        self._wanted = False
        with counted("ww.embed_pending"):
            report = self.jobs.embed_pending(
                max_seconds=SHIFT_SECONDS, should_stop=lambda: self._embedding.stopped, should_yield=self._writing
            )
        self.outage = report.outage
        if report.more:
            return 0.0
        if report.retry_in > 0:
            return report.retry_in
        # rows that wait for their next attempt, or that another process holds
        if self._deployment.graph.oldest_pending() is None:
            self._look = 0.0
            return SWEEP_SECONDS
        self._look = min(LONGEST_LOOK_SECONDS, max(0.5, 2 * self._look))
        return self._look

    def _chore(self) -> float:
        while (run := self._next_run()) is not None and not self._chores.stopped:
            self._consolidate(run)
        if self._clock() >= self._next_sweep and not self._chores.stopped:
            self._next_sweep = self._clock() + SWEEP_SECONDS * random.uniform(0.9, 1.1)
            with counted("ww.sweep"):
                self.jobs.sweep(should_stop=lambda: self._chores.stopped)
            self._consolidate_due()
            if not self._chores.stopped and self._once_in(DECAY_SECONDS, DECAY_FACT):
                with counted("ww.decay"):
                    self.jobs.decay(should_stop=lambda: self._chores.stopped)
        if self._clock() >= self._next_alerts and not self._chores.stopped:
            self._next_alerts = self._clock() + self._deployment.settings.alert_interval
            with counted("ww.alerts"):
                self.jobs.check_alerts()
        return max(0.0, min(self._next_sweep, self._next_alerts) - self._clock())

    def _next_run(self) -> Run | None:
        with self._lock:
            return self._runs.popitem(last=False)[1] if self._runs else None

    def _consolidate(self, run: Run) -> None:
        self.works_on = run.run_id
        try:
            with suppress(ShutDown), counted("ww.consolidate"):  # whoever comes next finds the request
                self.jobs.consolidate(run.session_id, run_id=run.run_id, should_stop=lambda: self._chores.stopped)
        except WorldWeaverError as error:  # the run says so too
            log.warning("consolidation failed: %s", error, extra={"action": "consolidation", "run_id": run.run_id})
        finally:
            self.works_on = None

    def _consolidate_due(self) -> None:
        if self._once_in(self._deployment.settings.consolidation_interval, DUE_FACT):
            with counted("ww.consolidate_due"):
                self.jobs.consolidate_due(self._deployment.clock())

    def _once_in(self, interval: float, fact: str) -> bool:
        """Whether it is time again, once per ``interval`` seconds over all processes and starts of this data directory;
        the first interval begins with the first process."""
        graph, now = self._deployment.graph, self._deployment.clock()
        last = graph.get_fact(fact)
        if last is not None and 0 <= (now - datetime.fromisoformat(last)).total_seconds() < interval:
            return False
        graph.put_fact(fact, now.isoformat())
        return last is not None


_running: weakref.WeakSet[Dispatcher] = weakref.WeakSet()


def _stop_all() -> None:
    dispatchers = list(_running)
    for dispatcher in dispatchers:
        dispatcher._embedding.stop()
        dispatcher._chores.stop()
    for dispatcher in dispatchers:
        dispatcher.close()
    # A thread that is inside an engine or loads a model while the interpreter takes itself apart aborts the process.
    deadline = time.monotonic() + EXIT_SECONDS
    for dispatcher in dispatchers:
        dispatcher._embedding.join(deadline)
        dispatcher._chores.join(deadline)


def _forget_in_child() -> None:
    # threads do not survive a fork, and the child's memory starts its own
    _running.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget_in_child)
