"""What an episode may be: every value handed in is checked here, and every refusal names the value and the way out.

Content is kept exactly as it was handed in (newlines, tabs, escapes and surrounding whitespace included); only where
surrounding whitespace takes it past the limit is that whitespace dropped.
"""

from __future__ import annotations

import difflib
import json
import math
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, SupportsFloat

from ww_core.errors import InvalidInput
from ww_core.models import (
    DEFAULT_IMPORTANCE,
    DEFAULT_SESSION,
    MAX_CONTENT_CHARS,
    MAX_CONTEXT_BYTES,
    MAX_ID_CHARS,
    OUTCOMES,
    Episode,
)

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Exclusive. Outside these a timestamp is a slip of units (milliseconds for seconds) or of a parser."""
MAX_POSITION = 2**53 - 1
"""The largest whole number that JSON readers keep exact."""
MAX_SHOWN = 60
"""Characters of a refused value that an error repeats."""

KEYS = ("content", "session_id", "timestamp", "context", "outcome", "importance", "episode_id")
MESSAGE_KEYS = ("role", "name")
"""Beside ``content`` in chat messages; both are kept in the context."""
_ALLOWED = frozenset((*KEYS, *MESSAGE_KEYS, "position"))
_OFTEN_CONTENT = ("text", "message", "body", "memory")
"""What other systems call the content."""


def shown(value: object) -> str:
    """The value as an error repeats it: short, on one line, safe to print."""
    try:
        text = ascii(value)
    except Exception:  # the caller's own __repr__ may raise anything, and deep nesting RecursionError
        text = f"<{type(value).__name__}>"
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def content(value: object, name: str = "content") -> str:
    """The content as it is stored; ``name`` is how errors call it."""
    if not isinstance(value, str):
        hint = "decode bytes to text first" if isinstance(value, bytes | bytearray) else "hand in a str"
        raise InvalidInput(f"{name} must be text, not {type(value).__name__} {shown(value)}", hint=hint)
    if not any(map(_visible, value)):
        raise InvalidInput(f"{name} is empty: {shown(value)}", hint="give it at least one visible character")
    if len(value) > MAX_CONTENT_CHARS:
        value = value.strip()
        if len(value) > MAX_CONTENT_CHARS:
            raise InvalidInput(
                f"{name} has {len(value)} characters, beginning {shown(value[:40])}; at most {MAX_CONTENT_CHARS} fit",
                hint="split it into several episodes, in a text file by blank lines",
            )
    if "\x00" in value:
        raise InvalidInput(
            f"{name} has a NUL character at position {value.index(chr(0))}: {shown(value)}", hint="remove it"
        )
    _encodable(name, value)
    return value


def _visible(character: str) -> bool:
    """Whether it is neither space nor control nor format character (zero-width ones are of the latter)."""
    category = unicodedata.category(character)
    return category not in ("Cc", "Cf") and not category.startswith("Z")


def _encodable(name: str, value: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{name} has a lone surrogate {value[error.start]!a} at position {error.start}: {shown(value)}",
                hint="it was decoded wrongly; read it as UTF-8 with errors='replace'",
            ) from None


def identifier(name: str, value: object) -> str:
    """An episode or session id: 1 to 128 characters, no control characters, no lone surrogates."""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} must be text, not {type(value).__name__} {shown(value)}", hint="hand in a str")
    if not 1 <= len(value) <= MAX_ID_CHARS:
        raise InvalidInput(
            f"{name} has {len(value)} characters: {shown(value)}", hint=f"use 1 to {MAX_ID_CHARS} characters"
        )
    if not value.isascii() or not value.isprintable():
        _encodable(name, value)
        if any(unicodedata.category(c) == "Cc" for c in value):
            raise InvalidInput(f"{name} has a control character: {shown(value)}", hint="use printable characters")
    if value.isspace():
        raise InvalidInput(f"{name} is blank: {shown(value)}", hint="use at least one visible character")
    return value


def session(value: object) -> str:
    """A session id; None is the default session."""
    return DEFAULT_SESSION if value is None else identifier("session_id", value)


def timestamp(value: object, name: str = "timestamp") -> datetime:
    """A timezone-aware datetime, or its ISO 8601 text with an offset, as UTC."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise InvalidInput(
                f"{name} is no ISO 8601 time: {shown(value)}", hint="write it like 2026-01-31T12:00:00+00:00"
            ) from None
    elif isinstance(value, datetime):
        moment = value
    else:
        raise InvalidInput(
            f"{name} must be a datetime or ISO 8601 text, not {type(value).__name__} {shown(value)}",
            hint="convert numbers with datetime.fromtimestamp(seconds, tz=timezone.utc)",
        )
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidInput(
            f"{name} {moment.isoformat()} has no time zone",
            hint="add one: datetime.now(timezone.utc), or an offset such as +00:00",
        )
    if not EARLIEST.year <= moment.year <= LATEST.year or not EARLIEST <= moment < LATEST:
        raise InvalidInput(
            f"{name} {moment.isoformat()} is out of range",
            hint=f"use a time from {EARLIEST.year} to {LATEST.year - 1}; were milliseconds read as seconds?",
        )
    return moment.astimezone(UTC)


def importance(value: object) -> float:
    """A number from 0 to 1."""
    number = math.nan
    if isinstance(value, SupportsFloat) and not isinstance(value, bool):
        with suppress(TypeError, ValueError, OverflowError):
            number = float(value)
    if not 0 <= number <= 1:
        raise InvalidInput(f"importance must be a number from 0 to 1, not {shown(value)}")
    return number


def outcome(value: object) -> str | None:
    """One of the four outcomes, or None."""
    if value is None:
        return None
    if isinstance(value, str) and value in OUTCOMES:
        return value
    raise InvalidInput(
        f"outcome {shown(value)} is unknown", hint=f"use one of {', '.join(OUTCOMES)}{_near(str(value), OUTCOMES)}"
    )


def context(value: object) -> dict[str, Any]:
    """A copy of a JSON object of at most 16 KiB as UTF-8, without NaN or infinities."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f"context must be a JSON object, not {type(value).__name__} {shown(value)}", hint="hand in a dict"
        )
    wrong = next((key for key in value if not isinstance(key, str)), None)
    if wrong is not None:
        raise InvalidInput(
            f"context has the key {shown(wrong)}, which is no text", hint="keys of JSON objects are text"
        )
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"context has a lone surrogate {error.object[error.start]!a}", hint="it was decoded wrongly; remove it"
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"context is no JSON: {shown(value)}: {error or type(error).__name__}",
            hint="use text, finite numbers, true, false, null, lists and objects",
        ) from None
    if size > MAX_CONTEXT_BYTES:
        raise InvalidInput(
            f"context takes {size} bytes as JSON; at most {MAX_CONTEXT_BYTES} fit", hint="put the text into the content"
        )
    copied: dict[str, Any] = json.loads(text)
    return copied


def limit(value: object, *, most: int = 100) -> int:
    """How many results: 1 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        bounds = f"from 1 to {most}" if most < 2**53 else "of at least 1"
        raise InvalidInput(f"limit must be a whole number {bounds}, not {shown(value)}")
    return value


def _near(word: str, known: tuple[str, ...]) -> str:
    if word.lower() in _OFTEN_CONTENT and "content" in known:
        return "; did you mean content?"
    near = difflib.get_close_matches(word.lower(), known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def checked(item: Episode, *, position: int, episode_id: str, now: datetime) -> Episode:
    """The episode as it is written; what it lacks is filled from ``position``, ``episode_id`` and ``now``."""
    return Episode(
        content=content(item.content),
        episode_id=identifier("episode_id", item.episode_id) if item.episode_id else episode_id,
        session_id=session(item.session_id),
        timestamp=now if item.timestamp is None else timestamp(item.timestamp),
        context=context(item.context),
        outcome=outcome(item.outcome),
        importance=importance(item.importance),
        position=item.position or position,
    )


def _mapped(item: Mapping[Any, Any], *, position: int, episode_id: str, now: datetime, session_id: str) -> Episode:
    for key in item:
        if key not in _ALLOWED:
            near = _near(key, KEYS) if isinstance(key, str) else ""
            raise InvalidInput(f"unknown key {shown(key)}", hint=f"known keys are {', '.join(KEYS)} and role{near}")
    if "content" not in item:
        raise InvalidInput(f"an item without content: {shown(dict(item))}", hint='give it a "content"')
    given = item.get("context")
    extra = {key: item[key] for key in MESSAGE_KEYS if item.get(key) is not None}
    for key, value in extra.items():
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{key} must be text, not {shown(value)}")
    if extra and (given is None or isinstance(given, Mapping)):
        given = {**extra, **(given or {})}
    own_id, moment = item.get("episode_id"), item.get("timestamp")
    own_session, weight = item.get("session_id"), item.get("importance")
    text = item["content"]
    place = item.get("position", position)
    if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place <= MAX_POSITION:
        raise InvalidInput(f"position must be a whole number from 0 to {MAX_POSITION}, not {shown(place)}")
    return Episode(
        content=content(_parts(text) if "role" in item and isinstance(text, list | tuple) else text),
        episode_id=episode_id if own_id is None else identifier("episode_id", own_id),
        session_id=session_id if own_session is None else session(own_session),
        timestamp=now if moment is None else timestamp(moment),
        context=context(given),
        outcome=outcome(item.get("outcome")),
        importance=DEFAULT_IMPORTANCE if weight is None else importance(weight),
        position=place,
    )


def _parts(parts: list[Any] | tuple[Any, ...]) -> str:
    """The text of a chat message whose content is a list of parts."""
    texts = [p["text"] for p in parts if isinstance(p, Mapping) and isinstance(p.get("text"), str)]
    return "\n".join(texts)


def episode(item: object, *, position: int, episode_id: str, now: datetime, session_id: str | None = None) -> Episode:
    """Any accepted kind of item as the episode to be written.

    ``item``: text, Episode, mapping with store's keywords, or chat message (``role``, ``content``). ``position``: its
    place in the call. ``episode_id`` and ``now`` are taken where it has none, ``session_id`` where it names none.
    Raises InvalidInput.
    """
    home = session_id or DEFAULT_SESSION
    if isinstance(item, str):
        return Episode(content=content(item), episode_id=episode_id, session_id=home, timestamp=now, position=position)
    if isinstance(item, Episode):
        if session_id and item.session_id == DEFAULT_SESSION:
            item = Episode(
                **{k: getattr(item, k) for k in (*KEYS, "position") if k != "session_id"}, session_id=session_id
            )
        return checked(item, position=position, episode_id=episode_id, now=now)
    if isinstance(item, Mapping):
        return _mapped(item, position=position, episode_id=episode_id, now=now, session_id=home)
    if isinstance(item, bytes | bytearray):
        content(item)
    raise InvalidInput(
        f"an item must be text, an Episode or a mapping, not {type(item).__name__} {shown(item)}",
        hint='for example "what happened" or {"role": "user", "content": "what was said"}',
    )
