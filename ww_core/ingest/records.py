"""Cut a byte stream into lines or paragraphs in bounded memory, remembering where each began."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAX_RECORD_BYTES = 2 * 1024 * 1024
"""More than any valid line: 50 000 characters escaped at 12 bytes each, and 16 KiB of context."""

KEPT_BYTES = 64 * 1024 * 1024
"""Of a record above the limit: a small gzip file may unpack to a line that fills the disk."""

_CHUNK_BYTES = 64 * 1024


class Overlong:
    """A record above the limit; its first KEPT_BYTES are kept in a temporary file until they are read once."""

    def __init__(self, head: bytes) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives until close
        self._file.write(head)
        self.size = len(head)

    def add(self, data: bytes) -> None:
        """Append what follows."""
        self._file.write(data[: max(0, KEPT_BYTES - self.size)])
        self.size += len(data)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def close(self) -> None:
        """Give the space back."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Record:
    """``data`` as it stood in the file and its first line's number from 1; above the limit ``overlong`` instead."""

    line: int
    data: bytes
    overlong: Overlong | None = None


def lines(stream: IO[bytes]) -> Iterator[Record]:
    """Every line, blank ones too, with its end."""
    number = 0
    while data := stream.readline(MAX_RECORD_BYTES + 1):
        number += 1
        if len(data) <= MAX_RECORD_BYTES:
            yield Record(number, data)
            continue
        overlong = Overlong(data)
        try:
            while not data.endswith(b"\n") and (data := stream.readline(_CHUNK_BYTES)):
                overlong.add(data)
        except Exception:
            overlong.close()
            raise
        yield Record(number, b"", overlong)


def at_blanks(records: Iterator[Record]) -> Iterator[tuple[Record, bool]]:
    """Every line with whether it is blank, and so ends a paragraph."""
    return ((record, is_blank(record)) for record in records)


def is_blank(record: Record) -> bool:
    return record.overlong is None and not record.data.strip()


def paragraphs(marked: Iterator[tuple[Record, bool]]) -> Iterator[Record]:
    """Runs of lines up to one that ends a paragraph and is in none."""
    run = _Run()
    try:
        for record, ends in marked:
            if not ends:
                run.add(record)
            elif run.start:
                yield run.taken()
                run = _Run()
    except Exception:
        run.close()
        raise
    if run.start:
        yield run.taken()


class _Run:
    """Lines that become one record."""

    def __init__(self) -> None:
        self.start = 0
        """The number of the first line, 0 without any."""
        self._size = 0
        self._parts: list[bytes] = []
        self._overlong: Overlong | None = None

    def add(self, record: Record) -> None:
        """Take a line, and what it keeps on disk."""
        self.start = self.start or record.line
        self._size += len(record.data)
        if self._overlong is None and record.overlong is None and self._size <= MAX_RECORD_BYTES:
            self._parts.append(record.data)
            return
        if self._overlong is None:
            self._overlong = Overlong(b"".join(self._parts))
            self._parts = []
        for chunk in record.overlong or (record.data,):
            self._overlong.add(chunk)
        if record.overlong is not None:
            record.overlong.close()

    def taken(self) -> Record:
        """All of it, which is the caller's to close."""
        overlong, self._overlong = self._overlong, None
        return Record(self.start, b"".join(self._parts), overlong)

    def close(self) -> None:
        """Give back what is on disk."""
        if self._overlong is not None:
            self._overlong.close()
