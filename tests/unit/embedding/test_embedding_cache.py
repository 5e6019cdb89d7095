"""The cache is bounded, ages, computes once, and tells the truth about itself."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from tests.support.clock import Clock
from ww_core.embedding.cache import EmbeddingCache
from ww_core.models import Vector


class Model:
    """Counts what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, keys: Sequence[str]) -> list[Vector]:
        self.asked += keys
        return [np.full(2, len(key), dtype=np.float32) for key in keys]


def cache_of(size: int = 10, ttl: float = 60, clock: Clock | None = None) -> EmbeddingCache[str]:
    return EmbeddingCache(size, ttl, clock=clock or Clock())


def test_what_is_not_counted_is_no_lookup() -> None:
    cache, model = cache_of(), Model()
    for _ in range(2):
        cache.fetch(["a"], model, counted=False)
    assert model.asked == ["a"]
    assert cache.stats()["total"] == 0


def test_an_unused_cache_has_no_hit_rate() -> None:
    stats = cache_of().stats()
    assert stats["total"] == 0
    assert math.isnan(stats["hits"] / stats["total"])
    assert f"{stats['hits'] / stats['total']:.2%}" == "nan%"
    assert math.isnan(100 * stats["hits"] / stats["total"])
    assert math.isnan(stats["hit_rate"])


def test_statistics_count_every_text_asked_for() -> None:
    cache, model = cache_of(), Model()
    cache.fetch(["a", "b", "a"], model)
    cache.fetch(["a", "c"], model)
    stats = cache.stats()
    assert (stats["hits"], stats["misses"], stats["total"], stats["size"]) == (2, 3, 5, 3)
    assert stats["hits"] / stats["total"] == pytest.approx(0.4)
    assert model.asked == ["a", "b", "c"]


def test_the_least_recently_used_goes_first() -> None:
    cache, model = cache_of(size=2), Model()
    for key in ("a", "b", "a", "c"):
        cache.fetch([key], model)
    assert set(cache.peek(["a", "b", "c"])) == {"a", "c"}
    assert cache.stats()["evictions"] == 1


def test_an_entry_expires_after_its_time_to_live() -> None:
    clock = Clock()
    cache, model = cache_of(ttl=60, clock=clock), Model()
    cache.fetch(["a"], model)
    clock.now = 59.9
    cache.fetch(["a"], model)
    assert model.asked == ["a"]
    clock.now = 60.0
    assert cache.peek(["a"]) == {}
    cache.fetch(["a"], model)
    assert model.asked == ["a", "a"]
    assert cache.stats()["expired"] == 1


def test_size_zero_keeps_nothing() -> None:
    cache, model = cache_of(size=0), Model()
    cache.fetch(["a"], model)
    cache.fetch(["a"], model)
    assert model.asked == ["a", "a"]
    assert cache.stats()["size"] == 0


def test_looking_does_not_count_or_keep_alive() -> None:
    cache, model = cache_of(size=2), Model()
    cache.fetch(["a"], model)
    cache.fetch(["b"], model)
    before = dict(cache.stats())
    cache.peek(["a", "z"])
    assert dict(cache.stats()) == before
    cache.fetch(["c"], model)
    assert set(cache.peek(["a", "b", "c"])) == {"b", "c"}


def test_two_threads_asking_for_one_text_compute_it_once() -> None:
    cache, model = cache_of(), Model()
    begun, go_on = threading.Event(), threading.Event()

    def slow(keys: Sequence[str]) -> list[Vector]:
        begun.set()
        assert go_on.wait(10)
        return model(keys)

    results: list[list[Vector]] = []
    first = threading.Thread(target=lambda: results.append(cache.fetch(["a"], slow)))
    first.start()
    assert begun.wait(10)
    second = threading.Thread(target=lambda: results.append(cache.fetch(["b", "a"], model)))
    second.start()
    while cache.stats()["total"] < 3:
        assert second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert sorted(model.asked) == ["a", "b"]
    assert len(results) == 2
    assert cache.stats()["hits"] == 1


def test_two_threads_asking_crosswise_do_not_wait_for_each_other() -> None:
    cache, model = cache_of(), Model()
    both = threading.Barrier(2, timeout=10)

    def meet(keys: Sequence[str]) -> list[Vector]:
        both.wait()
        return model(keys)

    left, right = threading.Event(), threading.Event()

    def ask(mine: str, other: str, me: threading.Event, you: threading.Event) -> None:
        def compute(keys: Sequence[str]) -> list[Vector]:
            me.set()
            assert you.wait(10)
            return meet(keys)

        cache.fetch([mine], compute)
        cache.fetch([other, mine], model)

    threads = [
        threading.Thread(target=ask, args=("a", "b", left, right)),
        threading.Thread(target=ask, args=("b", "a", right, left)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sorted(model.asked) == ["a", "b"]


def test_a_failed_computation_releases_those_who_wait() -> None:
    cache, model = cache_of(), Model()
    begun, go_on = threading.Event(), threading.Event()

    def fail(keys: Sequence[str]) -> list[Vector]:
        begun.set()
        assert go_on.wait(10)
        raise RuntimeError("no")

    def ask() -> None:
        with pytest.raises(RuntimeError):
            cache.fetch(["a"], fail)

    first = threading.Thread(target=ask)
    first.start()
    assert begun.wait(10)
    found: list[list[Vector]] = []
    second = threading.Thread(target=lambda: found.append(cache.fetch(["a"], model)))
    second.start()
    while cache.stats()["total"] < 2:
        assert second.is_alive()
    go_on.set()
    first.join(10)
    second.join(10)
    assert len(found) == 1
    assert model.asked == ["a"]
    assert (cache.stats()["hits"], cache.stats()["misses"]) == (0, 2)


def test_a_caller_cannot_spoil_what_is_cached() -> None:
    cache, model = cache_of(), Model()
    row = cache.fetch(["abc"], model)[0]
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 9
