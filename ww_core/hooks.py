"""Functions of the application that see episodes before and after they are stored and recalled, and name clusters.

=================  =====================================  ===================================================
point              called with                            may return
=================  =====================================  ===================================================
``before_store``   the validated ``Episode``              another ``Episode`` to store instead, or None
``after_store``    the ``Episode`` and its ``Receipt``    (ignored)
``before_recall``  the recall request                     another request, or None
``after_recall``   the ``Recall``                         another ``Recall``, or None
``name_cluster``   a ``Cluster``, contents of examples    a label, or None to leave it to the next one
=================  =====================================  ===================================================

A hook is a plain or an async function. It may refuse by raising ``InvalidInput`` in ``before_store`` or
``before_recall``; that is the only error that reaches the caller. Everything else a hook does wrong (another
exception, ``SystemExit`` and ``CancelledError`` among them, a result of the wrong type or made of wrong parts, more
than its ``timeout`` in seconds) is counted, logged and passed over: the value goes on as it was. A ``before_store``
hook cannot change ``episode_id`` or the position; what it returns is validated again. Hooks of a higher ``priority``
run first; equal ones in the order they were registered. What a hook itself stores or recalls runs no hooks.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar, overload

from ww_core.errors import ConfigurationError, InvalidInput
from ww_core.masking import origin_of
from ww_core.observability.metrics import Metrics, process_metrics
from ww_core.offload import Offload

log = logging.getLogger(__name__)

Point: TypeAlias = Literal["before_store", "after_store", "before_recall", "after_recall", "name_cluster"]
POINTS: tuple[Point, ...] = ("before_store", "after_store", "before_recall", "after_recall", "name_cluster")
MAY_REFUSE: frozenset[Point] = frozenset({"before_store", "before_recall"})
MAX_STUCK = 4
"""Calls of one hook that may still be running past their time-out; while so many are, the hook is passed over."""

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
_inside: ContextVar[bool] = ContextVar("ww_inside_hook", default=False)


@dataclass(eq=False)
class Hook:
    """One registered function. ``timeout`` is seconds; ``stuck`` counts calls that outlived it and still run."""

    function: Callable[..., Any]
    priority: int
    timeout: float
    stuck: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', repr(self.function))}"


class Hooks:
    """A registry of hooks, and the way to run them."""

    def __init__(self, *, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or process_metrics()
        self._hooks: dict[Point, tuple[Hook, ...]] = dict.fromkeys(POINTS, ())
        self._offload = Offload()

    # -- registering

    def add(self, point: Point, function: Callable[..., Any], *, priority: int = 0, timeout: float = 1.0) -> None:
        """Register a function; registering it again at the same point replaces it. ``timeout`` is seconds, above 0."""
        if not callable(function):
            raise InvalidInput(f"a {point} hook must be callable, not {function!r}", hint="decorate a function")
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise InvalidInput(f"priority must be a whole number, not {priority!r}", hint="higher runs first")
        if not isinstance(timeout, int | float) or not 0 < timeout <= 3600:
            raise InvalidInput(f"timeout must be seconds above 0 and up to 3600, not {timeout!r}")
        others = [h for h in self._hooks[point] if h.function is not function]
        new = Hook(function, priority, timeout)
        self._hooks[point] = tuple(sorted([*others, new], key=lambda h: -h.priority))

    def remove(self, function: Callable[..., Any]) -> None:
        """Take a function away from every point."""
        for point in POINTS:
            self._hooks[point] = tuple(h for h in self._hooks[point] if h.function is not function)

    def clear(self) -> None:
        """Take every hook away."""
        self._hooks = dict.fromkeys(POINTS, ())

    def load(self, modules: Iterable[str]) -> None:
        """Import modules for the hooks they register. Raises ConfigurationError naming the module."""
        for module in modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # whatever the application's own module raises at import
                raise ConfigurationError(
                    f"module {module!r} cannot be imported: {type(error).__name__}: {error}",
                    hint="it is in the setting hooks: mend it, install it, or set PYTHONPATH",
                ) from error

    # -- running

    def has(self, point: Point) -> bool:
        """Whether running this point would call anything."""
        return bool(self._hooks[point]) and not _inside.get()

    def apply(self, point: Point, value: T, *, valid: Callable[[T], T] = lambda value: value) -> T:
        """Pass ``value`` through the point's hooks, each result replacing it where it is not None.

        ``valid`` gives a result in the form to go on with. Where a hook should not have returned it, it raises
        InvalidInput and quotes no text of an episode.
        """
        if not self.has(point):
            return value
        for hook in self._hooks[point]:
            result = self._call(point, hook, value)
            if result is None:
                continue
            if isinstance(result, type(value)):
                try:
                    value = valid(result)
                except InvalidInput as error:
                    self._failed(point, hook, TypeError(f"returned what is not valid: {error}"))
                except Exception as error:  # its parts are the hook's own, and may do anything when looked at
                    self._failed(point, hook, error)
            else:
                wrong = TypeError(f"returned {type(result).__name__}, not {type(value).__name__} or None")
                self._failed(point, hook, wrong)
        return value

    def notify(self, point: Point, *args: Any) -> None:
        """Call the point's hooks; what they return is ignored."""
        if self.has(point):
            for hook in self._hooks[point]:
                self._call(point, hook, *args)

    def first(self, point: Point, kind: type[T], *args: Any) -> T | None:
        """The first answer of the point's hooks that is a ``kind``."""
        if self.has(point):
            for hook in self._hooks[point]:
                result = self._call(point, hook, *args)
                if isinstance(result, kind):
                    return result
                if result is not None:
                    wrong = TypeError(f"returned {type(result).__name__}, not {kind.__name__} or None")
                    self._failed(point, hook, wrong)
        return None

    def _call(self, point: Point, hook: Hook, *args: Any) -> Any:
        if hook.stuck >= MAX_STUCK:
            self._metrics.increment(f"hooks.{point}.skipped")
            return None
        start = time.perf_counter()
        try:
            future = self._start(hook.function, args)
            return future.result(hook.timeout)
        except InvalidInput as error:
            if point in MAY_REFUSE:
                raise
            self._failed(point, hook, error)
        except TimeoutError as error:
            if future.done():  # the hook itself raised it
                self._failed(point, hook, error)
            else:
                self._outlived(point, hook, future)
        except Exception as error:  # a hook is the application's code: whatever it raises is its own failure
            self._failed(point, hook, error)
        finally:
            self._metrics.observe(f"hooks.{point}", time.perf_counter() - start)
        return None

    def _start(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Future[Any]:
        if inspect.iscoroutinefunction(function):
            return self._offload.await_(_async(function, args))
        return self._offload.call(_sync, function, args)

    def _outlived(self, point: Point, hook: Hook, future: Future[Any]) -> None:
        with hook.lock:
            hook.stuck += 1

        def freed(_: Future[Any]) -> None:
            with hook.lock:
                hook.stuck -= 1

        future.add_done_callback(freed)
        if inspect.iscoroutinefunction(hook.function):
            future.cancel()
        self._metrics.increment(f"hooks.{point}.timeouts")
        self._failed(point, hook, TimeoutError(f"took longer than {hook.timeout:g} s"))

    def _failed(self, point: Point, hook: Hook, error: BaseException) -> None:
        self._metrics.increment(f"hooks.{point}.failures")
        self._metrics.errors.add(f"hooks.{point}", error)
        why = origin_of(type(error), error.__traceback__) if error.__traceback__ else str(error)  # ours: never raised
        log.warning(
            "hook failed: %s: %s", hook.name, why, extra={"action": "hook.failed", "point": point, "hook": hook.name}
        )


class HookEnded(Exception):
    """A hook raised what ends a process or a task; on a thread of its own it ends nothing but itself."""


async def _async(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    _inside.set(True)
    try:
        return await function(*args)
    except (SystemExit, KeyboardInterrupt) as error:  # either would end the loop, and every async hook with it
        raise HookEnded(type(error).__name__) from error


def _sync(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    _inside.set(True)
    try:
        return function(*args)
    except (SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
        raise HookEnded(type(error).__name__) from error


_process = Hooks()


def process_hooks() -> Hooks:
    """The registry of this process, which the decorators fill."""
    return _process


def _decorator(point: Point, function: F | None, priority: int, timeout: float) -> F | Callable[[F], F]:
    def register(f: F) -> F:
        _process.add(point, f, priority=priority, timeout=timeout)
        return f

    return register if function is None else register(function)


@overload
def before_store(function: F, /) -> F: ...
@overload
def before_store(*, priority: int = 0, timeout: float = 1.0) -> Callable[[F], F]: ...
def before_store(function: F | None = None, /, *, priority: int = 0, timeout: float = 1.0) -> F | Callable[[F], F]:
    """See or change every episode before it is written: ``(episode) -> Episode | None``."""
    return _decorator("before_store", function, priority, timeout)


@overload
def after_store(function: F, /) -> F: ...
@overload
def after_store(*, priority: int = 0, timeout: float = 1.0) -> Callable[[F], F]: ...
def after_store(function: F | None = None, /, *, priority: int = 0, timeout: float = 1.0) -> F | Callable[[F], F]:
    """See every new episode once it is durable: ``(episode, receipt) -> None``."""
    return _decorator("after_store", function, priority, timeout)


@overload
def before_recall(function: F, /) -> F: ...
@overload
def before_recall(*, priority: int = 0, timeout: float = 1.0) -> Callable[[F], F]: ...
def before_recall(function: F | None = None, /, *, priority: int = 0, timeout: float = 1.0) -> F | Callable[[F], F]:
    """See or change every recall request: ``(request) -> request | None``."""
    return _decorator("before_recall", function, priority, timeout)


@overload
def after_recall(function: F, /) -> F: ...
@overload
def after_recall(*, priority: int = 0, timeout: float = 1.0) -> Callable[[F], F]: ...
def after_recall(function: F | None = None, /, *, priority: int = 0, timeout: float = 1.0) -> F | Callable[[F], F]:
    """See or change every answer: ``(recall) -> Recall | None``."""
    return _decorator("after_recall", function, priority, timeout)


@overload
def name_cluster(function: F, /) -> F: ...
@overload
def name_cluster(*, priority: int = 0, timeout: float = 1.0) -> Callable[[F], F]: ...
def name_cluster(function: F | None = None, /, *, priority: int = 0, timeout: float = 1.0) -> F | Callable[[F], F]:
    """Name clusters better: ``(cluster, contents) -> str | None``, with the contents of its best examples."""
    return _decorator("name_cluster", function, priority, timeout)
