"""Waits that grow."""

from __future__ import annotations

from ww_core.maintenance.breaker import CircuitBreaker


def test_waits_grow_with_jitter_up_to_the_longest() -> None:
    now = [0.0]
    breaker = CircuitBreaker(first=1, longest=8, clock=lambda: now[0], random=lambda: 0.0)
    assert [breaker.failed() for _ in range(6)] == [0.5, 1, 2, 4, 4, 4]
    assert breaker.remaining == 4
    now[0] += 4
    assert (breaker.remaining, breaker.failures) == (0, 6)
    breaker.succeeded()
    assert breaker.failures == 0
