"""Times and contexts as graph stores keep them, whichever it is: whole microseconds and compact JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def to_time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def to_time_or_none(microseconds: int | None) -> datetime | None:
    return None if microseconds is None else to_time(microseconds)


def to_duration_us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def attempt(run_id: str, version: int) -> str:
    """The name of one attempt at a run: each start of any run of the session has a version of its own, from 1."""
    return f"{run_id}.{version}" if version else ""


def of_attempt(name: str) -> tuple[str, int]:
    """Run id and version; version 0, which no attempt has, where it is no such name."""
    run_id, _, version = name.rpartition(".")
    return (run_id, int(version)) if version.isascii() and version.isdigit() and len(version) < 16 else (name, 0)


def to_json(context: Mapping[str, Any]) -> str | None:
    return json.dumps(dict(context), ensure_ascii=False, separators=(",", ":")) if context else None
