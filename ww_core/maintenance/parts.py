"""What the model makes of many texts, about a second's worth at a time, so that a stop or an outage loses little."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from typing import Protocol, TypeAlias

from ww_core.models import Vector

PART_SECONDS = 1.0

Made: TypeAlias = tuple[int, Vector]
"""A text's place in all lists, and float32 (w, d): a row for each of its windows."""


class Embedder(Protocol):
    """What this needs of the embedding service."""

    def windows_as_made(self, lists: Iterable[Sequence[str]]) -> Generator[Made]: ...


class Failed(Exception):
    """The model failed on texts that were in no part."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def in_parts(
    embedder: Embedder,
    lists: Iterable[Sequence[str]],
    *,
    over: Callable[[], bool],
    clock: Callable[[], float],
    interruptions: tuple[type[BaseException], ...] = (),
) -> Generator[list[Made]]:
    """The texts of all ``lists``, one after the other through the model; what is made by then is a part once ``over``
    says so.

    Raises Failed, after what was made before; ``interruptions`` pass.
    """
    part: list[Made] = []
    since = clock()
    failure: Exception | None = None
    with closing(embedder.windows_as_made(lists)) as made:
        try:
            for one in made:
                part.append(one)
                if over() or clock() - since >= PART_SECONDS:
                    yield part
                    part, since = [], clock()
        except interruptions:
            raise
        except Exception as error:  # whatever a tokeniser or a model may raise: which text it is, halving finds
            failure = error
    if part:
        yield part
    if failure is not None:
        raise Failed(failure)
