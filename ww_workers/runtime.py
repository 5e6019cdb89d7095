"""Who does a deployment's background work: Celery workers where there is a broker, else threads of this process."""

from __future__ import annotations

import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from ww_core.consolidation.standing import answered
from ww_core.deployment import Deployment
from ww_core.models import Run
from ww_core.stores.ports import Doorbell
from ww_workers.jobs import ENDED

FIRST_LOOK = 0.01
LONGEST_LOOK = 0.5


class Runtime(ABC):
    """The background of one deployment in this process: ``runtime_of`` gives it, and a new one after ``close``."""

    _all: ClassVar[weakref.WeakKeyDictionary[Deployment, Runtime]] = weakref.WeakKeyDictionary()
    _lock: ClassVar[threading.RLock] = threading.RLock()

    doorbell: Doorbell

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @classmethod
    def of(cls, deployment: Deployment, make: Callable[[Deployment], Runtime]) -> Runtime:
        """The runtime of this deployment, made where there is none; its doorbell is the deployment's from then on."""
        with cls._lock:
            found = cls._all.get(deployment)
            if found is None:
                found = make(deployment)
                found.install()
            return found

    @property
    def outage(self) -> str:
        """Why nothing could be embedded lately; workers elsewhere say it in their own logs."""
        return ""

    def install(self) -> None:
        """Be the deployment's runtime."""
        with self._lock:
            self._all[self.deployment] = self
            self.deployment.doorbell = self.doorbell

    def start(self) -> None:
        """Make sure that somebody works; returns at once, and may be called again."""
        return

    @abstractmethod
    def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run:
        """Run one consolidation and wait for it ``wait`` seconds at most (None: until it ends; 0: not at all).

        The run's status says how far it came. Raises NotFound, and BrokerUnavailable where nobody can be told.
        """

    def drain(self, *, timeout: float | None = None, on_progress: Callable[[int], None] | None = None) -> bool:
        """Wait until everything stored so far is embedded, dead or erased; False where ``timeout`` seconds pass before.

        ``on_progress`` gets the number of episodes that are still pending or leased.
        """
        graph = self.deployment.graph
        mark = graph.stored_mark()
        end = None if timeout is None else time.monotonic() + timeout
        look = FIRST_LOOK
        while not graph.settled(mark):
            self.doorbell.ring()
            if on_progress is not None:
                counts = graph.counts()
                on_progress(counts.pending + counts.leased)
            if end is not None and time.monotonic() >= end:
                return False
            _pause(look)
            look = min(LONGEST_LOOK, 2 * look)
        return True

    def close(self) -> None:
        """Stop within a few seconds, handing back what is in flight."""
        with self._lock:
            if self._all.get(self.deployment) is self:
                del self._all[self.deployment]

    def wait_for(self, run: Run, wait: float | None, *, at_most: float) -> Run:
        """The run once it has ended, or as it stands after ``wait`` seconds."""
        end = time.monotonic() + (at_most if wait is None else wait)
        look = FIRST_LOOK
        while run.status not in ENDED and time.monotonic() < end:
            _pause(look)
            look = min(LONGEST_LOOK, 2 * look)
            run = self.deployment.graph.run(run.run_id)
        return answered(run, self.deployment.graph)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def _forget_in_child() -> None:
    # the parent's threads and connections are not here
    Runtime._lock = threading.RLock()
    Runtime._all = weakref.WeakKeyDictionary()


os.register_at_fork(after_in_child=_forget_in_child)
