"""Figures are accurate, bounded, and absent where nothing was measured."""

import dataclasses
import json
import math
import os
import random

import numpy as np
import pytest

from tests.support.clock import Clock
from ww_core.errors import InvalidInput, StoreUnavailable
from ww_core.observability import ErrorHistory, Metrics
from ww_core.observability.sketch import Sketch
from ww_core.observability.summary import CACHE_HITS, CACHE_TOTAL, POOL_UTIL, summarise


@pytest.mark.parametrize("q", [0.01, 0.5, 0.95, 0.99, 1.0])
def test_quantiles_are_within_one_percent_of_the_exact_ones(q: float) -> None:
    rng = random.Random(1)
    values = [rng.lognormvariate(-4, 2) for _ in range(20_000)]
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    assert sketch.quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.01)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 20, 101])
def test_quantiles_of_a_few_hide_no_slow_one(n: int) -> None:
    rng = random.Random(n)
    values = [*(rng.lognormvariate(-4, 2) for _ in range(n - 1)), 60.0]
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    for q in (0.0, 0.3, 0.5, 0.95, 0.99, 1.0):
        assert sketch.quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.01)


def test_a_sketch_takes_bounded_memory_whatever_it_counts() -> None:
    rng = random.Random(2)
    sketch = Sketch()
    for _ in range(50_000):
        sketch.add(10 ** rng.uniform(-12, 12))
    sketch.add(0.0)
    sketch.add(math.inf)
    assert len(sketch.buckets) < 2000


def test_merged_sketches_answer_as_one_and_survive_json() -> None:
    one, two, both = Sketch(), Sketch(), Sketch()
    for i in range(1, 2000):
        (one if i % 2 else two).add(i / 1000)
        both.add(i / 1000)
    one.merge(Sketch.load(two.dump()))
    assert one.count == both.count
    assert [one.quantile(q) for q in (0.1, 0.5, 0.9)] == [both.quantile(q) for q in (0.1, 0.5, 0.9)]


def test_nothing_measured_is_not_a_number_and_never_a_zero() -> None:
    figures = Metrics().snapshot()
    for name in ("recall_latency_p50", "recall_latency_p95", "recall_latency_p99", "cache_hit_rate", "neo4j_pool_util"):
        assert math.isnan(getattr(figures, name)), name
    assert math.isnan(figures.qdrant_queue_depth)
    assert math.isnan(figures.error_rate)


BACKLOG = ("pending_episodes", "oldest_pending_seconds", "batch_fill", "hierarchical_gap")


def test_the_backlog_how_full_claims_are_and_the_gap_have_names() -> None:
    metrics = Metrics()
    assert all(math.isnan(getattr(metrics.snapshot(), name)) for name in BACKLOG)
    metrics.increment("embed.claimed", 3)
    metrics.increment("embed.claimable", 4)
    for name, value in (("episodes.pending", 7), ("oldest_pending_seconds", 12.5), ("recall.hierarchical_gap", 0.1)):
        metrics.set_gauge(name, value)
    figures = metrics.snapshot()
    assert [getattr(figures, name) for name in BACKLOG] == [7, 12.5, 0.75, 0.1]
    together = summarise([metrics.dump(), metrics.dump()])
    assert [getattr(together, name) for name in BACKLOG] == [7, 12.5, 0.75, 0.1]


def test_latencies_are_milliseconds_of_the_window_only() -> None:
    clock = Clock()
    metrics = Metrics(window_seconds=100, clock=clock)
    for _ in range(100):
        metrics.observe("recall", 1.0)
    clock.now = 150
    for _ in range(100):
        metrics.observe("recall", 0.010)
    figures = metrics.snapshot()
    assert figures.recall_latency_p99 == pytest.approx(10, rel=0.01)
    clock.now = 400
    assert math.isnan(metrics.snapshot().recall_latency_p99)


def test_error_rate_counts_failures_but_not_the_callers_mistakes() -> None:
    metrics = Metrics()
    for error in (None, None, InvalidInput("x"), StoreUnavailable("down")):
        try:
            with metrics.operation("store"):
                if error:
                    raise error
        except (InvalidInput, StoreUnavailable):
            pass
    figures = metrics.snapshot()
    assert figures.error_rate == 0.25
    assert [f.error for f in metrics.errors.latest()] == ["StoreUnavailable: down"]
    assert metrics.sketch("store").count == 3


def test_a_broken_probe_breaks_nothing() -> None:
    metrics = Metrics()
    metrics.probe("broken", lambda: 1 / 0)
    assert "broken" not in metrics.snapshot().gauges


def test_cache_hit_rate_is_that_of_the_window_whatever_the_totals_were() -> None:
    clock = Clock()
    metrics = Metrics(window_seconds=300, clock=clock)
    totals = {CACHE_HITS: 1000, CACHE_TOTAL: 1000}
    for name in totals:
        metrics.meter(name, lambda name=name: totals[name])
    assert math.isnan(metrics.snapshot().cache_hit_rate)
    totals.update({CACHE_HITS: 1003, CACHE_TOTAL: 1004})
    assert metrics.snapshot().cache_hit_rate == 0.75
    assert metrics.snapshot().cache_hit_rate == 0.75, "looking counts nothing"
    clock.now = 400
    assert math.isnan(metrics.snapshot().cache_hit_rate)
    totals[CACHE_TOTAL] += 2
    assert metrics.snapshot().cache_hit_rate == 0


def test_a_meter_that_is_taken_back_stays_counted_and_the_next_starts_anew() -> None:
    metrics = Metrics()
    total = [5]

    def read() -> int:
        return total[0]

    metrics.meter(CACHE_TOTAL, read)
    total[0] = 7
    metrics.drop_meter(CACHE_TOTAL, read)
    total[0] = 100
    metrics.meter(CACHE_TOTAL, read)
    assert metrics.snapshot().window[CACHE_TOTAL] == 2


def test_a_peak_is_the_largest_reading_of_the_window_and_of_all_processes() -> None:
    clock = Clock()
    one, two = Metrics(clock=clock), Metrics(clock=clock)
    for share in (0.2, 0.9, 0.1):
        one.peak(POOL_UTIL, share)
    two.peak(POOL_UTIL, 0.5)
    merged = summarise([one.dump(), two.dump()])
    assert (merged.neo4j_pool_util, merged.window[POOL_UTIL]) == (0.9, 4)
    clock.now = 200
    one.peak(POOL_UTIL, 0.3)
    clock.now = 400
    assert one.snapshot().neo4j_pool_util == 0.3
    clock.now = 600
    assert math.isnan(one.snapshot().neo4j_pool_util)


def test_figures_of_several_processes_merge() -> None:
    one, two = Metrics(), Metrics()
    one.observe("recall", 0.001)
    two.observe("recall", 0.100)
    one.increment("attempts", 9)
    two.increment("attempts", 1)
    two.failed("recall", RuntimeError("no"))
    merged = summarise([one.dump(), two.dump()])
    assert merged.stages["recall"].count == 2
    assert merged.error_rate == 0.1


def test_error_history_keeps_the_last_ones_and_can_be_resized() -> None:
    history = ErrorHistory(3)
    for i in range(5):
        history.add("store", ValueError(str(i)))
    assert [f.error for f in history.latest()] == ["ValueError: 2", "ValueError: 3", "ValueError: 4"]
    history.resize(1)
    assert [f.error for f in history.latest()] == ["ValueError: 4"]


def test_what_failed_last_is_told_of_every_process_without_what_an_episode_says() -> None:
    one, two = Metrics(), Metrics()
    secret = "what somebody said"
    told = [
        (
            StoreUnavailable("away at redis://:hunter2@cache", hint="is it running?"),
            "away at redis://:***@cache (is it",
        ),
        (OSError(28, "No space left on device", secret), "No space left on device"),
        (MemoryError(), ""),
        (ValueError(secret), ""),
        (InvalidInput(secret), ""),
        (UnicodeEncodeError("utf-8", secret, 0, 1, "surrogates"), ""),
    ]
    for i, (error, _) in enumerate(told):
        (one, two)[i % 2].failed("embed", error)
    dumps = json.dumps([one.dump(), two.dump()])
    assert secret not in dumps
    assert "hunter2" not in dumps
    found = summarise(json.loads(dumps)).last_failures
    assert [failure.error for failure in found] == [type(error).__name__ for error, _ in told]
    assert all(failure.message.startswith(message) for failure, (_, message) in zip(found, told, strict=True))
    assert {failure.action for failure in found} == {"embed"}
    assert all(failure.at.tzinfo is not None for failure in found)
    assert list(found) == sorted(found, key=lambda failure: failure.at)


def test_a_process_tells_of_few_failures_and_those_are_its_newest() -> None:
    metrics = Metrics()
    for i in range(100):
        metrics.failed("store", StoreUnavailable(f"away {i} " + "x" * 1000))
    found = metrics.snapshot()
    assert found.errors == 100
    assert [one.message.split()[1] for one in found.last_failures] == [str(i) for i in range(80, 100)]
    assert len(json.dumps(metrics.dump())) < 10_000


def test_a_forked_child_starts_with_nothing_measured() -> None:
    from ww_core.observability import process_metrics

    process_metrics().increment("before_fork")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, str(process_metrics().total("before_fork")).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "0"
    os.waitpid(pid, 0)


def test_a_snapshot_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Metrics().snapshot().error_rate = 0.0  # type: ignore[misc]
