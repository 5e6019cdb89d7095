"""Read episodes from files, directories and standard input, line by line, in bounded memory."""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeAlias

from ww_core.errors import InvalidInput
from ww_core.ingest import validate
from ww_core.ingest.csv_rows import rows
from ww_core.ingest.gunzip import SUFFIX, DamagedFile, plain
from ww_core.ingest.identity import LineIds
from ww_core.ingest.markdown import whole_fences
from ww_core.ingest.records import MAX_RECORD_BYTES, Record, at_blanks, lines, paragraphs
from ww_core.models import Episode

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was read: a path (``-`` for standard input) and a line from 1."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{'standard input' if self.path == STDIN else self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Found:
    """One valid episode with its id, and its line's number as ``position``."""

    place: Place
    episode: Episode
    raw: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A line that is no episode, with why, and its bytes as they stood there (read them at once)."""

    place: Place
    error: InvalidInput
    raw: Iterable[bytes]


Parsed: TypeAlias = Mapping[str, Any] | InvalidInput
_Format: TypeAlias = Callable[[IO[bytes]], Iterator[tuple[Record, Parsed]]]


def read_files(
    paths: Sequence[str],
    *,
    session_id: str,
    stdin: IO[bytes],
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Found | Refused]:
    """Every episode of every path, in order; ``session_id`` is for lines that name none, ``clock`` for undated ones.

    ``-`` is standard input: lines of JSON where it starts with ``{``, else paragraphs. Each may be gzip, whatever its
    name. Raises InvalidInput before anything is read where a path does not exist or is of no known kind.
    """
    for path in list(_expand(paths)):
        if path == STDIN:
            yield from _read(path, plain(stdin), _sniffed, session_id, clock)
        else:
            try:
                stream = open(path, "rb")  # noqa: SIM115 - closed below, the error is translated here
            except OSError as error:
                raise InvalidInput(f"cannot read {path!r}: {error.strerror}") from error
            with stream:
                yield from _read(path, plain(stream), _FORMATS[_kind(path)], session_id, clock)


def reads(paths: Sequence[str], file: Path, *, stdin: int = 0) -> bool:
    """Whether ``file`` is what one of the paths names, would be found in one that is a directory, or is standard input
    (the handle ``stdin``).

    A file that does not exist yet counts as found: it would be there by the time the directory is read.
    """
    for path in paths:
        if path == STDIN:
            if _same(stdin, file):
                return True
        elif os.path.isdir(path):
            found = _kind(file) in _FORMATS and not file.name.startswith(".")
            if found and Path(path).resolve() in file.resolve().parents:
                return True
        elif _same(path, file):
            return True
    return False


def _same(path: str | int, file: Path) -> bool:
    try:
        return file.is_file() and os.path.samestat(os.stat(path), file.stat())
    except OSError:  # one of them is not there
        return False


def _expand(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        if path == STDIN:
            yield path
        elif os.path.isdir(path):
            found = sorted(
                os.path.join(folder, name)
                for folder, _, names in os.walk(path)
                for name in names
                if _kind(name) in _FORMATS and not name.startswith(".")
            )
            if not found:
                raise InvalidInput(f"directory {path!r} holds no {', '.join(_FORMATS)} file")
            yield from found
        elif not os.path.exists(path):
            raise InvalidInput(f"no such file: {path!r}")
        elif _kind(path) not in _FORMATS:
            raise InvalidInput(
                f"{path!r} is of no known kind",
                hint=f"use {', '.join(_FORMATS)}, each also with {SUFFIX}, a directory, or - for standard input",
            )
        else:
            yield path


def _kind(path: str | Path) -> str:
    """How the name ends, in small letters and without what says that it is packed."""
    file = Path(path)
    return (Path(file.stem) if file.suffix.lower() == SUFFIX else file).suffix.lower()


def _read(
    path: str, stream: IO[bytes], parse: _Format, session_id: str, clock: Callable[[], datetime]
) -> Iterator[Found | Refused]:
    ids = LineIds()
    try:
        for record, parsed in parse(stream):
            place = Place(path, record.line)
            result = _episode(parsed, record.line, ids, session_id, clock())
            if isinstance(result, Episode):
                yield Found(place, result, record.data)
                continue
            yield Refused(place, result, record.overlong or (record.data,))
            if record.overlong is not None:
                record.overlong.close()
    except DamagedFile as error:
        yield Refused(Place(path, error.line), error, ())
    finally:
        ids.close()


def _episode(parsed: Parsed, line: int, ids: LineIds, session_id: str, now: datetime) -> Episode | InvalidInput:
    if isinstance(parsed, InvalidInput):
        return parsed
    try:
        found = validate.episode(parsed, position=line, episode_id="derived", now=now, session_id=session_id)
    except InvalidInput as error:
        return error
    if parsed.get("episode_id") is not None:
        return found
    written = parsed.get("timestamp")
    derived = ids.of(
        session_id=found.session_id,
        timestamp=None if written is None else str(written),
        content=found.content,
    )
    return replace(found, episode_id=derived)


def _sniffed(stdin: IO[bytes]) -> Iterator[tuple[Record, Parsed]]:
    """By the first character, where the stream lets us look ahead."""
    head = stdin.peek(4096) if hasattr(stdin, "peek") else b"{"
    parse = json_lines if head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[") else _text
    yield from parse(stdin)


def json_lines(stream: IO[bytes]) -> Iterator[tuple[Record, Parsed]]:
    """Every line that is not blank, with its object or why it is none."""
    for record in lines(stream):
        text = decode(record)
        if isinstance(text, InvalidInput):
            yield record, text
        elif text.strip():
            yield record, _json_object(text)


def _json_object(text: str) -> Parsed:
    try:
        value = json.loads(text)
    except RecursionError:
        return InvalidInput("the line is not JSON that can be read: nested too deeply")
    except ValueError as error:
        reason = "a number is too long"
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        return InvalidInput(f"the line is not JSON: {reason}")
    if not isinstance(value, dict):
        return InvalidInput(f"the line is {_JSON_NAMES[type(value)]}, not an object with a content")
    return value


def _text(stream: IO[bytes]) -> Iterator[tuple[Record, Parsed]]:
    return _texts(paragraphs(at_blanks(lines(stream))))


def _markdown(stream: IO[bytes]) -> Iterator[tuple[Record, Parsed]]:
    return _texts(paragraphs(whole_fences(lines(stream))))


def _texts(records: Iterator[Record]) -> Iterator[tuple[Record, Parsed]]:
    for record in records:
        text = decode(record)
        yield record, text if isinstance(text, InvalidInput) else {"content": text.strip()}


def decode(record: Record) -> str | InvalidInput:
    """The record's text, or why it has none."""
    if record.overlong is not None:
        return InvalidInput(f"{record.overlong.size} bytes are more than a line may have ({MAX_RECORD_BYTES})")
    data = record.data.removeprefix(codecs.BOM_UTF8) if record.line == 1 else record.data
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        return InvalidInput(f"not UTF-8: byte 0x{data[error.start]:02x} at {error.start + 1}")


def _csv(stream: IO[bytes]) -> Iterator[tuple[Record, Parsed]]:
    return rows(lines(stream), decode)


_JSON_NAMES: Mapping[type, str] = {
    list: "a JSON array",
    str: "a JSON string",
    int: "a JSON number",
    float: "a JSON number",
    bool: "a JSON boolean",
    type(None): "JSON's null",
}
_FORMATS: Mapping[str, _Format] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".csv": _csv,
    ".txt": _text,
    ".md": _markdown,
}
