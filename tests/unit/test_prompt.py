"""A recall as a block for a prompt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from ww_core.errors import InvalidInput
from ww_core.models import Recall, Recollection
from ww_core.prompt import estimate_tokens

DAY = datetime(2024, 5, 8, 13, 56, tzinfo=UTC)


def recall(*contents: str) -> Recall:
    results = tuple(
        Recollection(f"e{i}", text, 1.0 - i, {}, "s", DAY - timedelta(days=i), {}, None, None)
        for i, text in enumerate(contents)
    )
    return Recall("q", "flat", 1.0, results)


def test_lines_stand_under_their_day_oldest_first() -> None:
    assert recall("later", "earlier").as_text() == "[2024-05-07]\n- 13:56 earlier\n[2024-05-08]\n- 13:56 later"


def test_order_of_relevance_dates_every_line() -> None:
    text = recall("best", "second").as_text(order="relevance")
    assert text.splitlines() == ["- [2024-05-08 13:56] best", "- [2024-05-07 13:56] second"]


def test_repeats_appear_once_and_lines_do_not_break() -> None:
    text = recall("One\nthing.", "one thing").as_text()
    assert text.count("thing") == 1
    assert "One thing." in text


@pytest.mark.parametrize("budget", [1, 20, 50, 200])
def test_the_budget_is_kept(budget: int) -> None:
    text = recall(*(f"{'word ' * 30}number {i}" for i in range(20))).as_text(max_tokens=budget)
    assert estimate_tokens(text) <= budget


def test_what_is_most_relevant_is_kept_and_the_last_is_cut() -> None:
    text = recall("the best answer", "long " * 100).as_text(max_tokens=60)
    assert "the best answer" in text
    assert text.count("long") > 5
    assert "…" in text


@pytest.mark.parametrize("order", ["time", "relevance"])
@pytest.mark.parametrize("budget", range(1, 40))
def test_the_smallest_budget_leaves_something_of_the_best(budget: int, order: Literal["time", "relevance"]) -> None:
    best = "The spare key of the shed hangs behind the third flower pot, next to the tap"
    text = recall(best, "another").as_text(max_tokens=budget, order=order)
    assert 0 < estimate_tokens(text) <= budget
    assert budget == 1 or best[:3] in text
    assert "another" not in text or best in text


def test_a_short_answer_goes_without_its_date_rather_than_cut() -> None:
    assert recall("behind the pot").as_text(max_tokens=10) == "behind the pot"
    assert recall("behind the pot").as_text(max_tokens=14) == "[2024-05-08]\n- 13:56 behind the pot"


def test_no_results_no_text() -> None:
    assert recall().as_text() == ""


def test_a_budget_of_nothing_is_refused() -> None:
    for nothing in (0, 1.5, None):
        with pytest.raises(InvalidInput, match="max_tokens"):
            recall("a").as_text(max_tokens=nothing)  # type: ignore[arg-type]
