"""What is told where a command has kept what it was given, and what should follow that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ww.cli.signals import Interrupted
from ww_core.errors import WorldWeaverError


class Unfinished(Exception):
    """``answer`` and ``line`` say what is done, the cause why no more is: nobody has to guess, or to do it twice."""

    def __init__(self, answer: Mapping[str, Any], line: str) -> None:
        super().__init__(line)
        self.answer = answer
        self.line = line


@contextmanager
def kept(
    answer: Callable[[], Mapping[str, Any]], line: Callable[[], str], *, anything: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """Where the block fails or is interrupted, the answer is printed all the same, with the error beside it; unless
    there is not ``anything`` yet to tell of."""
    try:
        yield
    except (WorldWeaverError, OSError, Interrupted) as error:
        if not anything():
            raise
        raise Unfinished(answer(), line()) from error
