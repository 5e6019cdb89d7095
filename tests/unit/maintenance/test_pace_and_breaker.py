"""Steps of about a second, and waits that grow."""

from __future__ import annotations

from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.pace import Pace


def test_a_slow_machine_gets_short_steps_and_a_fast_one_long_ones() -> None:
    slow, fast = Pace(), Pace()
    for _ in range(20):
        slow.learned([1000] * 10, 20.0)
        fast.learned([1000] * 10, 0.01)
    texts = [1000] * 600
    assert len(next(slow.steps(texts, lambda n: n))) == 1
    assert len(next(fast.steps(texts, lambda n: n))) == 512


def test_steps_cover_everything_once_whatever_is_learned_meanwhile() -> None:
    pace = Pace()
    texts = [(i, 50 + i) for i in range(700)]
    seen = []
    for step in pace.steps(texts, lambda text: text[1]):
        seen += step
        pace.learned([n for _, n in step], 0.001)
    assert seen == texts


def test_one_text_that_is_too_long_for_any_step_is_a_step() -> None:
    assert [len(step) for step in Pace(rate=10).steps([10_000, 10_000], lambda n: n)] == [1, 1]


def test_waits_grow_with_jitter_up_to_the_longest() -> None:
    now = [0.0]
    breaker = CircuitBreaker(first=1, longest=8, clock=lambda: now[0], random=lambda: 0.0)
    assert [breaker.failed() for _ in range(6)] == [0.5, 1, 2, 4, 4, 4]
    assert breaker.remaining == 4
    now[0] += 4
    assert (breaker.remaining, breaker.failures) == (0, 6)
    breaker.succeeded()
    assert breaker.failures == 0
