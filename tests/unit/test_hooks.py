"""Hooks see and change what passes, in order, and never break it."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from ww_core.errors import ConfigurationError, InvalidInput
from ww_core.hooks import MAX_STUCK, Hooks
from ww_core.models import Episode
from ww_core.observability import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def hooks(metrics: Metrics) -> Hooks:
    return Hooks(metrics=metrics)


def appends(text: str) -> Callable[[Episode], Episode]:
    return lambda episode: Episode(episode.content + text)


def test_hooks_run_by_priority_then_by_registration(hooks: Hooks) -> None:
    hooks.add("before_store", appends("b"))
    hooks.add("before_store", appends("c"))
    hooks.add("before_store", appends("a"), priority=5)
    assert hooks.apply("before_store", Episode("")).content == "abc"


def test_none_keeps_the_value(hooks: Hooks) -> None:
    hooks.add("before_store", lambda episode: None)
    episode = Episode("x")
    assert hooks.apply("before_store", episode) is episode


def test_async_hooks_run_from_inside_and_outside_a_loop(hooks: Hooks) -> None:
    async def shout(episode: Episode) -> Episode:
        await asyncio.sleep(0)
        return Episode(episode.content.upper())

    hooks.add("before_store", shout)
    assert hooks.apply("before_store", Episode("x")).content == "X"

    async def inside() -> str:
        return hooks.apply("before_store", Episode("y")).content

    assert asyncio.run(inside()) == "Y"


def test_a_failing_hook_is_counted_and_passed_over(hooks: Hooks, metrics: Metrics) -> None:
    def breaks(episode: Episode) -> Episode:
        raise RuntimeError("no")

    hooks.add("before_store", breaks, priority=1)
    hooks.add("before_store", appends("!"))
    assert hooks.apply("before_store", Episode("x")).content == "x!"
    assert metrics.total("hooks.before_store.failures") == 1
    assert metrics.errors.latest()[-1].error == "RuntimeError: no"


def test_a_result_of_the_wrong_type_is_a_failure(hooks: Hooks, metrics: Metrics) -> None:
    hooks.add("before_store", lambda episode: "not an episode")
    assert hooks.apply("before_store", Episode("x")).content == "x"
    assert metrics.total("hooks.before_store.failures") == 1


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_hook_ends_neither_process_nor_task(hooks: Hooks, metrics: Metrics, ending: type[BaseException]) -> None:
    def plain(episode: Episode) -> None:
        raise ending

    async def awaited(episode: Episode) -> None:
        raise ending

    async def after_it(episode: Episode) -> Episode:
        return Episode(episode.content + "!")

    for function in (plain, awaited, after_it):
        hooks.add("before_store", function)
    assert hooks.apply("before_store", Episode("x")).content == "x!"
    assert metrics.total("hooks.before_store.failures") == 2


def test_a_result_that_is_not_valid_is_a_failure(hooks: Hooks, metrics: Metrics) -> None:
    def short(episode: Episode) -> Episode:
        if len(episode.content) > 2:
            raise InvalidInput("content is too long")
        return Episode(episode.content.upper())

    hooks.add("before_store", appends("yz"))
    hooks.add("before_store", appends("b"))
    assert hooks.apply("before_store", Episode("a"), valid=short).content == "AB"
    assert metrics.total("hooks.before_store.failures") == 1
    assert "content is too long" in metrics.errors.latest()[-1].error


def test_a_slow_hook_is_left_behind_and_then_passed_over(hooks: Hooks, metrics: Metrics) -> None:
    release = threading.Event()
    calls = []

    def slow(episode: Episode) -> Episode:
        calls.append(episode)
        release.wait(10)
        return Episode("too late")

    hooks.add("before_store", slow, timeout=0.01)
    for _ in range(MAX_STUCK + 3):
        assert hooks.apply("before_store", Episode("x")).content == "x"
    assert metrics.total("hooks.before_store.timeouts") == MAX_STUCK
    assert metrics.total("hooks.before_store.skipped") == 3
    assert len(calls) == MAX_STUCK
    release.set()


def test_a_slow_async_hook_is_cancelled(hooks: Hooks, metrics: Metrics) -> None:
    cancelled = threading.Event()

    async def slow(episode: Episode) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    hooks.add("before_store", slow, timeout=0.01)
    hooks.apply("before_store", Episode("x"))
    assert cancelled.wait(5)
    assert metrics.total("hooks.before_store.timeouts") == 1


def test_only_before_hooks_may_refuse(hooks: Hooks) -> None:
    def refuse(*_: object) -> None:
        raise InvalidInput("not this one")

    hooks.add("before_store", refuse)
    hooks.add("after_store", refuse)
    with pytest.raises(InvalidInput, match="not this one"):
        hooks.apply("before_store", Episode("x"))
    hooks.notify("after_store", Episode("x"))


def test_the_first_name_wins_and_wrong_ones_are_passed_over(hooks: Hooks) -> None:
    hooks.add("name_cluster", lambda cluster, contents: None, priority=3)
    hooks.add("name_cluster", lambda cluster, contents: 42, priority=2)
    hooks.add("name_cluster", lambda cluster, contents: "deploys", priority=1)
    assert hooks.first("name_cluster", str, object(), ()) == "deploys"


def test_what_a_hook_does_runs_no_hooks(hooks: Hooks) -> None:
    seen = []

    def again(episode: Episode) -> None:
        seen.append(hooks.has("before_store"))

    hooks.add("before_store", again)
    hooks.apply("before_store", Episode("x"))
    assert seen == [False]
    assert hooks.has("before_store")


def test_hook_time_is_measured(hooks: Hooks, metrics: Metrics) -> None:
    hooks.add("before_store", lambda episode: None)
    hooks.apply("before_store", Episode("x"))
    assert metrics.sketch("hooks.before_store").count == 1


def test_a_module_that_cannot_be_imported_is_named(hooks: Hooks) -> None:
    with pytest.raises(ConfigurationError, match="no_such_module_of_hooks"):
        hooks.load(["no_such_module_of_hooks"])


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_must_be_positive_and_finite(hooks: Hooks, timeout: float) -> None:
    with pytest.raises(InvalidInput):
        hooks.add("before_store", appends(""), timeout=timeout)


def test_decorators_work_bare_and_with_arguments() -> None:
    from ww import hooks as public
    from ww_core.hooks import process_hooks

    @public.before_store
    def bare(episode: Episode) -> None: ...

    @public.after_recall(priority=3, timeout=0.5)
    async def configured(recall: object) -> None: ...

    try:
        assert process_hooks().has("before_store")
        assert process_hooks().has("after_recall")
    finally:
        process_hooks().remove(bare)
        process_hooks().remove(configured)
    assert not process_hooks().has("before_store")
