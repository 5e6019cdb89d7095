"""Ctrl-C and SIGTERM as exceptions that unwind a command, so that leases are given back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes."""


class Interrupted(BaseException):
    """SIGINT. Not a KeyboardInterrupt: typer would make an exit code of it and say nothing."""


class Terminated(BaseException):
    """SIGTERM."""


@contextmanager
def raised() -> Iterator[None]:
    """Within the block the signals are exceptions of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, handler) for number, handler in _HANDLERS.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Interrupted


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated


_HANDLERS = {signal.SIGINT: _interrupt, signal.SIGTERM: _terminate}
