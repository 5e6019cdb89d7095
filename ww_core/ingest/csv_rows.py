"""Turn the rows of a CSV file into store's keywords; columns it does not know become context."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ww_core.errors import InvalidInput
from ww_core.ingest.records import Record

CONTENT_COLUMNS = ("content", "text")
_TEXT_COLUMNS = ("episode_id", "session_id", "timestamp", "outcome")


class _Lines:
    """Feeds csv.reader and remembers which lines a row was made of."""

    def __init__(self, records: Iterator[Record], decode: Callable[[Record], str | InvalidInput]) -> None:
        self._records = records
        self._decode = decode
        self.taken: list[Record] = []
        self.refused: list[tuple[Record, InvalidInput]] = []
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        while True:
            try:
                record = next(self._records)
            except StopIteration:
                self.ended = True
                raise
            text = self._decode(record)
            if isinstance(text, str):
                self.taken.append(record)
                return text
            self.refused.append((record, text))

    def take(self) -> Record:
        """The lines read since the last call, as one record."""
        record = Record(self.taken[0].line, b"".join(part.data for part in self.taken))
        self.taken.clear()
        return record


def rows(
    records: Iterator[Record], decode: Callable[[Record], str | InvalidInput]
) -> Iterator[tuple[Record, Mapping[str, Any] | InvalidInput]]:
    """Each row with its record; a file without a content or text column is refused as a whole at its header."""
    source = _Lines(records, decode)
    reader = csv.reader(source)
    header: list[str] | None = None
    while True:
        cells: list[str] | None = None
        broken = ""
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # The csv module gives up on a field above 131 072 characters, so an open quote cannot swallow the file.
            broken = str(error)
        if cells is not None and source.ended:  # it asked for more, and makes a row of what it has
            broken = "a quote is still open at the end of the file"
        yield from source.refused
        source.refused.clear()
        if cells is None and not broken:
            return
        record = source.take()
        if broken:
            yield record, InvalidInput(f"the row is not CSV: {broken}")
        elif cells and header is None:
            header = [name.strip() for name in cells]
            if not set(header) & set(CONTENT_COLUMNS) or len(set(header)) < len(header):
                shown = ", ".join(header)[:200]
                yield record, InvalidInput(f"the header names no content or text column, or one twice: {shown}")
                return
        elif cells and header is not None:
            yield record, _item(header, cells)


def _item(header: list[str], cells: list[str]) -> Mapping[str, Any] | InvalidInput:
    if len(cells) > len(header):
        return InvalidInput(f"the row has {len(cells)} cells, the header {len(header)}")
    given = {name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()}
    content = next((name for name in CONTENT_COLUMNS if name in header), "")
    item: dict[str, Any] = {"content": given.pop(content, "")}
    item.update({name: given.pop(name).strip() for name in _TEXT_COLUMNS if name in given})
    try:
        if "importance" in given:
            item["importance"] = float(given.pop("importance"))
        context = json.loads(given.pop("context", "{}"))
    except (ValueError, RecursionError):
        return InvalidInput("importance must be a number from 0 to 1, and context JSON")
    if not isinstance(context, dict):
        return InvalidInput(f"context must be a JSON object, not {type(context).__name__}")
    item["context"] = {**given, **context}
    return item
