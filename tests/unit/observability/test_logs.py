"""How a log line looks to a machine."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from ww_core.observability.logs import JsonFormatter, as_json


@pytest.fixture
def foreign() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of another package, and what it writes."""
    logger, stream = logging.Logger("another"), io.StringIO()
    logger.addHandler(logging.StreamHandler(stream))
    logging.Logger.manager.loggerDict["another"] = logger
    yield logger, stream
    del logging.Logger.manager.loggerDict["another"]


def test_what_a_record_carries_does_not_hide_how_severe_it_is() -> None:
    record = logging.makeLogRecord(
        {"name": "ww", "levelno": logging.ERROR, "levelname": "ERROR", "msg": "it is hot", "level": "critical", "at": 3}
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["message"], line["at"]) == ("error", "it is hot", 3)


def test_lines_of_others_are_objects_without_what_they_carry(foreign: tuple[logging.Logger, io.StringIO]) -> None:
    logger, stream = foreign
    as_json("another")
    logger.error("task %s received", "a", extra={"data": {"args": "the text of an episode"}})
    assert json.loads(stream.getvalue()).keys() == {"time", "level", "logger", "message"}
