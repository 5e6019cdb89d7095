"""Calls that can be left behind: plain functions on daemon threads, coroutines on one private event loop."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, TypeAlias

_Job: TypeAlias = tuple[Future[Any], Context, Callable[..., Any], tuple[Any, ...]]


class Offload:
    """Starts calls and never waits for them; nothing it runs holds up the end of the process. Survives fork."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[queue.SimpleQueue[_Job]] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Run a plain function on an idle thread, else on a new one, in a copy of the caller's context."""
        self._check()
        future: Future[Any] = Future()
        with self._lock:
            jobs = self._idle.pop() if self._idle else None
        if jobs is None:
            jobs = queue.SimpleQueue()
            threading.Thread(target=self._work, args=(jobs, self._idle), name="ww-offload", daemon=True).start()
        jobs.put((future, copy_context(), function, args))
        return future

    def await_(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the private loop, in a copy of the caller's context; cancelling the future cancels it."""
        self._check()
        return asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())

    def _check(self) -> None:
        if os.getpid() != self._pid:  # threads and loops do not survive a fork
            self._reset()

    @staticmethod
    def _work(jobs: queue.SimpleQueue[_Job], idle: list[queue.SimpleQueue[_Job]]) -> None:
        while True:
            future, context, function, args = jobs.get()
            if future.set_running_or_notify_cancel():
                try:
                    result = context.run(function, *args)
                except BaseException as error:  # handed to whoever waits for the future, as an executor does
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, context, function, args
            idle.append(jobs)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="ww-offload-loop", daemon=True).start()
            return self._loop
