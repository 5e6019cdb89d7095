"""Where the paragraphs of a Markdown file end: at blank lines, but for those inside a fenced code block."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from ww_core.ingest.records import Record, at_blanks, is_blank
from ww_core.models import MAX_CONTENT_CHARS

_FENCE = re.compile(rb"[ \t]*(`{3,}(?=[^`]*$)|~{3,})")
"""CommonMark 4.5, indented by any white space: inside lists fences are."""


def whole_fences(records: Iterator[Record]) -> Iterator[tuple[Record, bool]]:
    """Every line with whether it ends a paragraph.

    A block that is never closed, or too long for one episode together with what stands before it in its paragraph, is
    cut at its blank lines.
    """
    chars = 0  # of the paragraph so far
    fence: _Fence | None = None
    for record in records:
        if fence is None and (opened := _FENCE.match(record.data.removeprefix(codecs.BOM_UTF8))):
            fence = _Fence(opened[1], room=MAX_CONTENT_CHARS - chars)
            chars = 0
        if fence is None:
            chars = 0 if is_blank(record) else chars + _chars(record)
            yield record, is_blank(record)
            continue
        yield from fence.add(record)
        if fence.closed:
            chars = fence.chars
            fence = None
    if fence is not None:
        yield from fence.cut()


class _Fence:
    """An open block, held back while it may still be kept whole."""

    def __init__(self, mark: bytes, *, room: int) -> None:
        self._close = re.compile(rb"[ \t]*%b{%d,}\s*$" % (re.escape(mark[:1]), len(mark)))
        self._room = room
        self._held: list[Record] = []
        self._whole = True
        self.chars = 0
        self.closed = False

    def add(self, record: Record) -> Iterator[tuple[Record, bool]]:
        """The lines that need not be held back any more."""
        self.closed = bool(self.chars and self._close.match(record.data))
        self.chars += _chars(record)
        self._held.append(record)
        self._whole = self._whole and self.chars <= self._room and record.overlong is None
        if not self._whole:
            yield from self.cut()
        elif self.closed:
            yield from ((held, False) for held in self._held)

    def cut(self) -> Iterator[tuple[Record, bool]]:
        """The lines that are held back, as if there were no block."""
        held, self._held = self._held, []
        return at_blanks(iter(held))


def _chars(record: Record) -> int:
    return len(record.data.decode("utf-8", "replace"))
