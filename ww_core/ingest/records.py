"""Cut a byte stream into lines or paragraphs in bounded memory, remembering where each began."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAX_RECORD_BYTES = 2 * 1024 * 1024
"""More than any valid line: 50 000 characters escaped at 12 bytes each, and 16 KiB of context."""

_CHUNK_BYTES = 64 * 1024


class Overlong:
    """The bytes of a record above the limit, kept in a temporary file until they are read once."""

    def __init__(self, head: bytes) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives until close
        self._file.write(head)
        self.size = len(head)

    def add(self, data: bytes) -> None:
        """Append what follows."""
        self._file.write(data)
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
        while not data.endswith(b"\n") and (data := stream.readline(_CHUNK_BYTES)):
            overlong.add(data)
        yield Record(number, b"", overlong)


def paragraphs(stream: IO[bytes]) -> Iterator[Record]:
    """Runs of lines that are not blank."""
    start, size = 0, 0
    parts: list[bytes] = []
    overlong: Overlong | None = None
    for record in lines(stream):
        if record.overlong is None and not record.data.strip():
            if parts or overlong:
                yield Record(start, b"".join(parts), overlong)
            parts, size, overlong = [], 0, None
            continue
        if not parts and overlong is None:
            start = record.line
        if overlong is None and record.overlong is None and size + len(record.data) <= MAX_RECORD_BYTES:
            parts.append(record.data)
            size += len(record.data)
            continue
        if overlong is None:
            overlong = Overlong(b"".join(parts))
            parts = []
        for chunk in record.overlong or (record.data,):
            overlong.add(chunk)
        if record.overlong is not None:
            record.overlong.close()
    if parts or overlong:
        yield Record(start, b"".join(parts), overlong)
