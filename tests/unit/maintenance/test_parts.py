"""What is made of many texts, part by part."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from ww_core.maintenance.parts import Failed, Made, in_parts


class Slow:
    """A model that takes a second for every third text and fails at the place it is told to."""

    def __init__(self, fails_at: int = -1, error: BaseException | None = None) -> None:
        self.seconds, self.closed = 0.0, False
        self._fails_at, self._error = fails_at, error

    def windows_as_made(self, lists: Iterable[Sequence[str]]) -> Generator[Made]:
        try:
            (texts,) = lists
            for place in reversed(range(len(texts))):
                if place == self._fails_at and self._error is not None:
                    raise self._error
                self.seconds += 0.34
                yield place, np.ones((1, 2), np.float32)
        finally:
            self.closed = True


def parts(model: Slow, n: int, over: Callable[[], bool] = lambda: False, **options: Any) -> Generator[list[Made]]:
    return in_parts(model, [["text"] * n], over=over, clock=lambda: model.seconds, **options)


def places(part: Sequence[Made]) -> list[int]:
    return [place for place, _ in part]


def test_a_part_is_about_a_second_of_work_and_nothing_is_left_out() -> None:
    assert [places(part) for part in parts(Slow(), 8)] == [[7, 6, 5], [4, 3, 2], [1, 0]]
    assert list(parts(Slow(), 0)) == []


def test_what_is_made_when_it_is_over_is_a_part_and_the_model_is_let_go() -> None:
    model = Slow()
    made = parts(model, 8, over=lambda: model.seconds > 0.5)
    assert places(next(made)) == [7, 6]
    made.close()
    assert model.closed


def test_a_failure_comes_after_what_was_made_before_it() -> None:
    made = parts(Slow(2, RuntimeError("too odd")), 5)
    assert places(next(made)) == [4, 3]
    with pytest.raises(Failed, match="too odd") as failed:
        next(made)
    assert isinstance(failed.value.error, RuntimeError)


def test_an_interruption_is_no_failure() -> None:
    model = Slow(3, TimeoutError())
    with pytest.raises(TimeoutError):
        list(parts(model, 5, interruptions=(TimeoutError,)))
    assert model.closed
