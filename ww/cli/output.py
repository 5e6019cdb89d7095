"""What goes to stdout: one JSON object, or text for people in which nothing can steer the terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PREVIEW_CHARS = 300
PIPED_COLUMNS = 160
"""Width of what goes to a file or another program."""

# Bidirectional overrides and isolates reorder what a person reads; the rest of Cf is left alone (joiners, soft hyphen).
_STEERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str) -> str:
    """``text`` for a terminal: control characters and direction overrides as their escapes, newline and tab kept.

    >>> harmless("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or not _steers(char) else _escaped(char) for char in text)


def _steers(char: str) -> bool:
    code = ord(char)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000 or char in _STEERING


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str, limit: int = PREVIEW_CHARS) -> str:
    """``text`` on one line, harmless, at most ``limit`` characters."""
    flat = harmless(" ".join(text[: limit * 4].split()))
    return flat if len(flat) <= limit and len(text) <= limit * 4 else flat[: limit - 1] + "…"


def plain(value: Any) -> Any:
    """Domain objects as JSON: dataclasses by field, times as ISO 8601, nan and infinities as null."""
    if isinstance(value, bool | int | str) or value is None:
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def pick(value: Any, names: Sequence[str]) -> dict[str, Any]:
    """The named fields of a domain object, as JSON."""
    return {name: plain(getattr(value, name)) for name in names}


def emit(as_json: bool, answer: Callable[[], Mapping[str, Any]], show: Callable[[Console], None]) -> None:
    """Print the answer, once: ``answer`` makes the JSON object, ``show`` prints for people."""
    if as_json:
        write_json(answer())
    else:
        from rich.console import Console

        class Plain(Console):
            """Takes text as it is, and leaves a closed pipe to whoever runs the command."""

            def on_broken_pipe(self) -> None:
                raise BrokenPipeError

        width = None if sys.stdout.isatty() else PIPED_COLUMNS
        show(Plain(width=width, soft_wrap=True, highlight=False, markup=False, emoji=False))
    sys.stdout.flush()


def write_json(value: Mapping[str, Any]) -> None:
    """One object on one line of stdout."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=not utf8, allow_nan=False) + "\n")


def table(console: Console, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns for people, the last one cut to the room that is left; ``#`` before a heading makes numbers of it."""
    from rich.cells import cell_len, chop_cells
    from rich.text import Text

    lines = [[heading.lstrip("#") for heading in headings], *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(headings) - 1)]
    room = max(20, console.width - sum(widths) - 2 * len(widths))
    for number, line in enumerate(lines):
        text = ""
        for heading, width, cell in zip(headings, widths, line, strict=False):
            padding = " " * (width - cell_len(cell))
            text += (padding + cell if heading.startswith("#") else cell + padding) + "  "
        last = line[-1]
        if headings[-1].startswith("#"):
            last = last.rjust(max(len(one[-1]) for one in lines))
        elif cell_len(last) > room:
            last = chop_cells(last, room - 1)[0] + "…"
        console.print(Text(text + last, style="bold" if number == 0 else ""))


def moment(value: datetime | None) -> str:
    """A time for people, in their own zone."""
    return "" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M")


def note(text: str) -> None:
    """One line on stderr."""
    sys.stderr.write(one_line(text, 1000) + "\n")
    sys.stderr.flush()
