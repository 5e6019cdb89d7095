"""How log lines look: text for people, or one JSON object each for machines."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import IO, Literal

from ww_core.masking import mask

OURS = ("ww", "ww_core", "ww_workers")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """``LEVEL message key=value ...``, passwords in URLs hidden."""

    def format(self, record: logging.LogRecord) -> str:
        parts = [record.levelname.lower() + ":", record.getMessage()]
        parts += [f"{key}={value}" for key, value in _extra(record).items()]
        text = " ".join(parts)
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return mask(text)


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, and ``beside`` whatever else the record carries."""

    def __init__(self, *, beside: bool = True) -> None:
        super().__init__()
        self._beside = beside

    def format(self, record: logging.LogRecord) -> str:
        line = {
            **(_extra(record) if self._beside else {}),
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return mask(json.dumps(line, default=str, ensure_ascii=False))


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def as_json(*names: str) -> None:
    """Let what these loggers of other packages write be objects too, "" the root; what their records carry beside the
    message may be a text."""
    for handler in {handler for name in names for handler in logging.getLogger(name).handlers}:
        handler.setFormatter(JsonFormatter(beside=False))


def configure(*, log_format: Literal["text", "json"], level: int, stream: IO[str]) -> None:
    """Send this package's records of at least ``level`` to ``stream``; other packages' loggers stay as they are."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    for name in OURS:
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False
