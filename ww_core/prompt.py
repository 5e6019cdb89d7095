"""Dated texts as one block for a prompt: folded, in order, within a budget."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeVar

from ww_core.errors import InvalidInput

_CHARS_PER_TOKEN = 4
_WORDS = re.compile(r"\w+|[^\w\s]")
_SHORTEST_CUT = 40
"""Characters; a text cut shorter than this says little and is left out, but for the first."""
_ELLIPSIS = " …"


class Dated(Protocol):
    """What a line is made of."""

    @property
    def episode_id(self) -> str: ...
    @property
    def content(self) -> str: ...
    @property
    def timestamp(self) -> datetime: ...


D = TypeVar("D", bound=Dated)


def estimate_tokens(text: str) -> int:
    """About how many tokens a language model would count, rather too many than too few."""
    return max(-(-len(text) // _CHARS_PER_TOKEN), len(_WORDS.findall(text)))


def as_text(results: Sequence[Dated], *, max_tokens: int = 1000, order: Literal["time", "relevance"] = "time") -> str:
    """The results, best first, as lines under the day they are of, texts that repeat each other once.

    The most relevant are taken until the budget of about ``max_tokens`` is spent; the last one is cut rather
    than left out where something of it still fits. Where not even the first fits with its date, it stands alone
    without one, cut to the budget: empty is only the text of no results. ``order`` says how the lines are sorted, not
    what is taken.
    """
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise InvalidInput(f"max_tokens must be a whole number of at least 1, not {max_tokens!r}")
    taken: list[tuple[Dated, str]] = []
    for result in folded(results):
        text = _one_line(result.content)

        def fits(part: str, result: Dated = result) -> bool:
            return estimate_tokens(render([*taken, (result, part)], order)) <= max_tokens

        if fits(text):
            taken.append((result, text))
            continue
        cut = _longest_fit(text, fits)
        if len(cut) >= _SHORTEST_CUT:
            taken.append((result, cut))
        elif not taken:
            return _bare(text, max_tokens)
        break
    return render(taken, order)


def render(lines: Sequence[tuple[Dated, str]], order: Literal["time", "relevance"]) -> str:
    """The block: in order of time each day once as a heading, in order of relevance the day on every line."""
    if order == "relevance":
        return "\n".join(f"- [{result.timestamp:%Y-%m-%d %H:%M}] {text}" for result, text in lines)
    block: list[str] = []
    day = ""
    for result, text in sorted(lines, key=lambda line: (line[0].timestamp, line[0].episode_id)):
        heading = f"[{result.timestamp:%Y-%m-%d}]"
        if heading != day:
            block.append(heading)
            day = heading
        block.append(f"- {result.timestamp:%H:%M} {text}")
    return "\n".join(block)


def folded(results: Sequence[D]) -> list[D]:
    """The results without those whose words repeat an earlier one's."""
    seen: set[str] = set()
    kept = []
    for result in results:
        key = fold_key(result.content)
        if key not in seen:
            seen.add(key)
            kept.append(result)
    return kept


def fold_key(content: str) -> str:
    """What two texts share that differ in case, spacing and punctuation only."""
    return " ".join(re.findall(r"\w+", content.casefold())) or content


def _one_line(content: str) -> str:
    return " ".join(content.split())


def _bare(text: str, max_tokens: int) -> str:
    """The text without a date, cut to the budget: at one token the ellipsis alone may be left."""
    if estimate_tokens(text) <= max_tokens:
        return text
    return _longest_fit(text, lambda part: estimate_tokens(part) <= max_tokens) or _ELLIPSIS.strip()


def _longest_fit(text: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of ``text`` that fits with an ellipsis behind it; empty where none does."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(text[:middle] + _ELLIPSIS):
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + _ELLIPSIS if low else ""
