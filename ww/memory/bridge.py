"""Between event loops and the blocking core: threads for async callers, the caller's own thread for blocking ones."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from ww_core.errors import BlockingCall

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 32
"""Calls of this process that run at once; more wait their turn."""


class _Pool:
    """One executor for the process, made anew after a fork."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="ww-call")


_pool = _Pool()
os.register_at_fork(after_in_child=_pool.__init__)  # type: ignore[misc]


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function: on a thread under an event loop, else (driven by ``blocking``) here."""
    if not _in_loop():
        return function(*args, **kwargs)
    work = partial(copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_pool.executor, work)


async def pause(seconds: float) -> None:
    """Wait, without blocking an event loop."""
    if _in_loop():
        await asyncio.sleep(seconds)
    else:
        time.sleep(seconds)


def _refuse_in_loop(name: str) -> None:
    if _in_loop():
        raise BlockingCall(
            f"ww.memory.sync.{name} was called inside a running event loop", hint=f"await ww.memory.{name} instead"
        )


def _drive(awaitable: Awaitable[T]) -> T:
    steps = awaitable.__await__()
    try:
        next(steps)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise RuntimeError("a blocking call waited for an event loop")


def blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """The same function for callers without an event loop: it runs on their own thread."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        _refuse_in_loop(function.__name__)
        coroutine = function(*args, **kwargs)
        if any(isinstance(a, AsyncIterable) for a in (*args, *kwargs.values())):
            return asyncio.run(coroutine)  # the caller's own stream needs a loop
        return _drive(coroutine)

    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return run


def blocking_iterator(function: Callable[P, AsyncIterator[T]]) -> Callable[P, Iterator[T]]:
    """The same iterator for callers without an event loop."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        _refuse_in_loop(function.__name__)

        def items() -> Iterator[T]:
            stream = function(*args, **kwargs)
            try:
                while True:
                    _refuse_in_loop(function.__name__)
                    try:
                        yield _drive(stream.__anext__())
                    except StopAsyncIteration:
                        return
            finally:
                if inspect.isasyncgen(stream):
                    _drive(stream.aclose())

        return items()

    run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return run
