"""Something that is one worker's for a time: renewed now and then while it works, until it turns out to be lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RENEW_SECONDS = 2.0
"""How often it is renewed: a small part of any lease, and seldom enough to cost nothing."""


@dataclass
class Hold:
    """Whether it is still this worker's: asked often, renewed by ``renew`` every RENEW_SECONDS. What is lost stays so.

    ``renewed``: when it was last known to be held, by ``clock``; by default the first question renews.
    """

    renew: Callable[[], bool]
    clock: Callable[[], float] = time.monotonic
    renewed: float = -math.inf
    _lost: bool = field(default=False, init=False)

    def __call__(self, *, at_once: bool = False) -> bool:
        """``at_once``: renew it however lately it was."""
        now = self.clock()
        if not self._lost and (at_once or now - self.renewed >= RENEW_SECONDS):
            self._lost = not self.renew()
            self.renewed = now
        return not self._lost
