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


def to_json(context: Mapping[str, Any]) -> str | None:
    return json.dumps(dict(context), ensure_ascii=False, separators=(",", ":")) if context else None
