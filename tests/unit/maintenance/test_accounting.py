"""An outage fails as many attempts as it holds episodes back: the error rate is the share of work that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.unit.maintenance.conftest import Bench
from ww_core.errors import StoreUnavailable
from ww_core.maintenance.drain import Drain
from ww_core.observability.alerts import evaluate
from ww_core.observability.metrics import ATTEMPTS, FAILURES

CLAIM = 64


class Away:
    """The real vector store; ``methods`` raise while it is away, but for the ``spared`` next calls."""

    def __init__(self, inner: Any, *methods: str) -> None:
        self._inner, self._methods, self.away, self.spared = inner, methods, False, 0

    def __getattr__(self, name: str) -> Any:
        if self.away and name in self._methods:
            self.spared -= 1
            if self.spared < 0:
                raise StoreUnavailable("away")
        return getattr(self._inner, name)


@pytest.fixture
def vectors(bench: Bench) -> Iterator[Away]:
    real = bench.vectors
    bench.settings = bench.settings.replace(embedding_claim_size=CLAIM)
    bench.vectors = away = Away(real, "upsert", "change")  # type: ignore[assignment]
    yield away
    bench.vectors = real


def counted(bench: Bench) -> tuple[int, int]:
    return bench.metrics.total(ATTEMPTS), bench.metrics.total(FAILURES)


@contextmanager
def outage(bench: Bench, vectors: Away) -> Iterator[None]:
    vectors.away = True
    yield
    vectors.away = False
    bench.seconds += 60


def wait(bench: Bench, drain: Drain) -> None:
    bench.seconds += drain.breaker.remaining


def test_half_of_the_claims_failing_is_half_of_the_work_and_critical(bench: Bench, vectors: Away) -> None:
    drain = bench.drain()
    for _ in range(4):
        bench.store(*(f"text {n}" for n in range(CLAIM)))
        with outage(bench, vectors):
            assert drain.run().outage
        assert drain.run().embedded == CLAIM
    assert counted(bench) == (8 * CLAIM, 4 * CLAIM)
    assert len(bench.metrics.errors.latest()) == 4, "one entry for each outage"
    found = {alert.name: alert for alert in evaluate(bench.metrics.snapshot(), bench.settings, {})}
    assert (found["error_rate"].value, found["error_rate"].level) == (0.5, "critical")


def test_what_was_written_before_the_outage_has_not_failed(bench: Bench, vectors: Away) -> None:
    bench.store(*(f"text {n}" for n in range(3 * CLAIM)))
    vectors.away, vectors.spared = True, 1
    report = bench.drain().run()
    attempts, failures = counted(bench)
    assert report.outage
    assert 0 < report.embedded == attempts - failures
    assert CLAIM <= failures + report.embedded <= 3 * CLAIM


def test_a_try_that_claims_nothing_fails_for_what_waits_for_it(bench: Bench) -> None:
    real = bench.vectors
    bench.vectors = vectors = Away(real, "upsert", "ping")  # type: ignore[assignment]
    bench.store(*(f"text {n}" for n in range(30)))
    drain = bench.drain()
    vectors.away = True
    for _ in range(3):
        assert drain.run().outage
        wait(bench, drain)
    assert counted(bench) == (90, 90)
    vectors.away = False
    assert drain.run().embedded == 30
    assert counted(bench) == (120, 90)
    bench.vectors = real


def test_refreshed_rows_count_like_those_that_cannot_be(bench: Bench, vectors: Away) -> None:
    bench.store(*(f"text {n}" for n in range(30)))
    bench.drain().run()
    attempts, _ = counted(bench)
    with outage(bench, vectors):
        assert bench.refresh().run(max_seconds=5).outage
    assert counted(bench) == (attempts + 30, 30)
    done = bench.refresh().run(max_seconds=5)
    assert counted(bench) == (attempts + 30 + done.payload + done.context, 30)
    assert done.context == 30
