"""How a run says that it lives, learns that it should stop, and knows when its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ww_core.errors import WorldWeaverError
from ww_core.stores.holding import Hold


class Stopped(WorldWeaverError):
    """The run was asked to stop."""


class OutOfTime(WorldWeaverError):
    """The run took longer than its limit."""


class LeaseLost(WorldWeaverError):
    """Another worker has taken the run over."""


class ShutDown(BaseException):
    """The process ends: others go on with the run. No error of the work, so nothing that records errors catches it."""


def unwatched() -> None:
    """What is called between the steps of work that nobody ends early."""


@dataclass
class Watch:
    """Called between the steps of a run.

    ``extend(progress)`` renews the lease and says whether it is still held; ``limit`` is seconds.
    """

    extend: Callable[[float], bool]
    limit: float
    should_stop: Callable[[], bool] | None = None
    on_progress: Callable[[float], None] | None = None
    clock: Callable[[], float] = time.monotonic
    held: Hold = field(init=False)
    """Renews the lease now and then, with the progress of the latest step, and so learns that the run was cancelled."""
    _started: float = field(init=False)
    _progress: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()
        self.held = Hold(lambda: self.extend(self._progress), self.clock, self._started)

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self.clock() - self._started

    def told_to_stop(self) -> bool:
        """Whether the run was asked to stop."""
        return self.should_stop is not None and self.should_stop()

    def ends(self) -> bool:
        """The same for what is only tidied up behind a run, which others can do as well, whoever asks to stop."""
        try:
            return self.told_to_stop()
        except ShutDown:
            return True

    def step(self, progress: float, *, renew: bool = False) -> None:
        """Report ``progress`` (0 to 1), and ``renew`` the lease however lately it was.

        Raises Stopped, OutOfTime or LeaseLost, after which nothing may be written.
        """
        if self.told_to_stop():
            raise Stopped("the run was asked to stop")
        if self.seconds > self.limit:
            raise OutOfTime(f"the run took longer than {self.limit:g} s", hint="raise consolidation_time_limit")
        self._progress = progress
        if not self.held(at_once=renew):
            raise LeaseLost("another worker has taken this run over")
        if self.on_progress is not None:
            self.on_progress(progress)
