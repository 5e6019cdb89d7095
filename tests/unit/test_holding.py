"""What is held is renewed now and then, and what was lost stays lost."""

from __future__ import annotations

import pytest

from tests.support.clock import Clock
from ww_core.consolidation.progress import LeaseLost, Watch
from ww_core.stores.holding import RENEW_SECONDS, Hold


class Lease:
    """A lease as a store keeps it: remembers what it was renewed with, until another worker has it."""

    def __init__(self) -> None:
        self.renewals: list[float] = []
        self.ours = True

    def extend(self, progress: float = 0.0) -> bool:
        self.renewals.append(progress)
        return self.ours


def test_who_asks_often_renews_now_and_then_and_never_again_once_it_is_lost() -> None:
    clock, lease = Clock(), Lease()
    held = Hold(lease.extend, clock)
    for _ in range(9):
        assert held()
        clock.now += RENEW_SECONDS / 4
    assert len(lease.renewals) == 3
    lease.ours = False
    assert held(), "it is not asked for before the next renewal"
    assert not held(at_once=True)
    lease.ours = True
    clock.now += RENEW_SECONDS
    assert not held()
    assert len(lease.renewals) == 4


def test_a_run_renews_with_its_progress_and_ends_where_its_lease_is_lost() -> None:
    clock, lease = Clock(), Lease()
    told: list[float] = []
    watch = Watch(lease.extend, limit=60, on_progress=told.append, clock=clock)
    watch.step(0.1)
    assert lease.renewals == [], "its start took the lease"
    clock.now += RENEW_SECONDS
    watch.step(0.2)
    watch.step(0.3)
    watch.step(0.4, renew=True)
    assert (lease.renewals, told) == ([0.2, 0.4], [0.1, 0.2, 0.3, 0.4])
    lease.ours = False
    clock.now += RENEW_SECONDS
    with pytest.raises(LeaseLost):
        watch.step(0.5)
    assert not watch.held()
    assert told[-1] == 0.4
