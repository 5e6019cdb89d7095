"""The memory behind the module-level functions: the one of the default settings, or the one put in its place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, Concatenate, ParamSpec, TypeVar

from ww.memory.episodic import EpisodicMemory

P = ParamSpec("P")
T = TypeVar("T")


class _Default:
    """Made when first needed, and anew where the ``T4DM_*`` environment changed since."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.memory: EpisodicMemory | None = None
        self.environment: dict[str, str] = {}
        self.replaced: list[EpisodicMemory] = []


_default = _Default()


def _unlock_in_child() -> None:
    _default.lock = threading.RLock()


os.register_at_fork(after_in_child=_unlock_in_child)


def current() -> EpisodicMemory:
    """The memory that module-level functions use now. Raises ConfigurationError."""
    if _default.replaced:
        return _default.replaced[-1]
    environment = {key: value for key, value in os.environ.items() if key.startswith("T4DM_")}
    memory = _default.memory
    if memory is None or environment != _default.environment:
        with _default.lock:
            memory = _default.memory
            if memory is None or environment != _default.environment:
                fresh = EpisodicMemory()
                if memory is not None:
                    memory.close()
                _default.memory, _default.environment = fresh, environment
                memory = fresh
    return memory


@contextmanager
def use(memory: EpisodicMemory) -> Iterator[EpisodicMemory]:
    """Let module-level functions use this memory within the block, in every thread of the process."""
    _default.replaced.append(memory)
    try:
        yield memory
    finally:
        _default.replaced.remove(memory)


def on_default(
    method: Callable[Concatenate[EpisodicMemory, P], Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """A method of EpisodicMemory as a function on the current memory."""

    @wraps(method)
    async def function(*args: P.args, **kwargs: P.kwargs) -> T:
        return await method(current(), *args, **kwargs)

    whole = signature(method)
    function.__signature__ = whole.replace(  # type: ignore[attr-defined]
        parameters=[p for name, p in whole.parameters.items() if name != "self"]
    )
    function.__qualname__ = method.__name__
    return function
