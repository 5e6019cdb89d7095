"""Gzip: read like the plain file, known by its first bytes; a damaged one says where it ends. Written by its name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from ww_core.errors import InvalidInput

SUFFIX = ".gz"
LEVEL = 6
"""Of packing: what gzip takes itself."""
_MAGIC = b"\x1f\x8b"
_CHUNK_BYTES = 64 * 1024


class DamagedFile(InvalidInput):
    """A gzip file that ends too early, or shows damage, in ``line``, counted from 1: what follows could not be read."""

    line = 0


def plain(stream: IO[bytes]) -> IO[bytes]:
    """The stream itself, or what it unpacks to where it is gzip and lets us look ahead.

    Reading the latter raises DamagedFile once everything before the damage was read.
    """
    head: bytes = stream.peek(len(_MAGIC)) if hasattr(stream, "peek") else b""
    if not head.startswith(_MAGIC):
        return stream
    return cast(IO[bytes], io.BufferedReader(_Unpacked(stream), _CHUNK_BYTES))


@contextmanager
def packed(stream: IO[bytes], path: str) -> Iterator[IO[bytes]]:
    """The stream itself, or where the path ends in ``.gz`` one that packs what is written to it, without the time."""
    if not path.lower().endswith(SUFFIX):
        yield stream
        return
    with gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=LEVEL, mtime=0) as out:
        yield cast(IO[bytes], out)


class _Unpacked(io.RawIOBase):
    """Counts the lines that it gives."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._gzip = gzip.GzipFile(fileobj=stream, mode="rb")
        self._line = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        try:
            data = self._gzip.read1(len(view))
        except EOFError:
            raise self._damaged("the gzip file is cut off in this line", "what ended before it is taken") from None
        except (zlib.error, gzip.BadGzipFile) as error:
            what = f"the gzip file is damaged here or before: {error}"
            raise self._damaged(what, "a line before it may be wrong") from None
        view[: len(data)] = data
        self._line += data.count(b"\n")
        return len(data)

    def _damaged(self, message: str, before: str) -> DamagedFile:
        error = DamagedFile(message, hint=f"{before}; give the whole file again, and nothing is stored twice")
        error.line = self._line
        return error
