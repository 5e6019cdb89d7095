"""Turn words of the command line into values, and refuse those that are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ww_core.errors import InvalidInput
from ww_core.ingest import validate


def context(parts: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` parts, or JSON objects, as one context; the values of ``KEY=VALUE`` are text."""
    found: dict[str, Any] = {}
    for part in parts:
        if part.lstrip().startswith("{"):
            try:
                value = json.loads(part)
            except (ValueError, RecursionError) as error:
                raise InvalidInput(f"--context {part[:60]!r} is not JSON: {error}") from error
            found.update(value)
            continue
        key, equals, text = part.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--context {part[:60]!r} is not KEY=VALUE", hint="for example --context tool=kubectl")
        found[key] = text
    return found


def time(name: str, text: str | None) -> datetime | None:
    """An option's ISO 8601 time with an offset."""
    return None if text is None else validate.timestamp(text, name)


def around(number: int) -> int:
    """How many neighbours on each side ``--around`` asks for."""
    from ww_core.memory import MAX_NEIGHBOURS

    if not 0 <= number <= MAX_NEIGHBOURS:
        raise InvalidInput(f"--around {number} is out of range", hint=f"use 0 to {MAX_NEIGHBOURS}")
    return number
