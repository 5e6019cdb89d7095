"""What Celery logs of messages and tasks in a worker, without what is in them: a body may be an episode's text.

Celery dumps the whole body of a message that it does not know, or cannot read, at ERROR; every body at DEBUG; and the
representation of whatever a task raises, which may quote the argument that it refuses, or that it stumbled over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ww_core.masking import origin_of

_MAX_CHARS = 200
_AWAY = "consumer: Cannot connect to"
_HIDDEN = "<not logged>"
_QUOTING = "InvalidInput("
"""How the representation of an error begins that repeats what was wrong: it is in the task's result."""

WITHOUT_TEXT = frozenset(
    f"ww.{name}" for name in ("alerts", "consolidate", "consolidate_due", "decay", "embed_pending", "sweep", "verify")
)
"""Tasks that no text is sent to: what their errors say is logged."""


def install() -> None:
    """Filter the records of this process; harmless where no worker runs, and twice."""
    for name, clean in _CLEANERS.items():
        logger = logging.getLogger(name)
        if not any(isinstance(one, _Discretion) for one in logger.filters):
            logger.addFilter(_Discretion(clean))


class _Discretion(logging.Filter):
    """Lets every record pass, cleaned."""

    def __init__(self, clean: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._clean = clean

    def filter(self, record: logging.LogRecord) -> bool:
        self._clean(record)
        return True


def _message(record: logging.LogRecord) -> None:
    """A message that is dropped: what is wrong with it, in one line, instead of all of it.

    A broker that is away: one line as well, without the number of tries, which nobody counts.
    """
    template = str(record.msg)
    if template.startswith(_AWAY) and isinstance(record.args, tuple) and len(record.args) == 3:
        place, error, step = map(str, record.args)
        again = step.partition("(")[0].strip(" .").lower()
        record.msg, record.args = "%s %s: %s; %s", (_AWAY, place, error.rstrip("."), again)
        return
    if "body" not in template and "Could not restore message" not in template:
        return
    what, _, _ = template.strip().splitlines()[0].partition("%")
    why = _reason(record.args[0]) if isinstance(record.args, tuple) and record.args else ""
    # the traceback goes too: the errors of decoders hold what they could not decode
    record.msg, record.args, record.exc_info, record.exc_text = "%s %s (its contents are not logged)", (), None, None
    record.args = (what.rstrip(": "), why)


def _reason(given: object) -> str:
    if isinstance(given, KeyError):  # the name of a task
        return str(given)[:_MAX_CHARS]
    if type(given).__name__ in ("InvalidTaskError", "ContentDisallowed"):
        return f"{type(given).__name__}: {given}"[:_MAX_CHARS]
    return type(given).__name__ if isinstance(given, Exception) else ""


def _pool(record: logging.LogRecord) -> None:
    if isinstance(record.args, tuple) and "args" in str(record.msg):
        record.msg, record.args = "TaskPool: apply a task", ()


def _task(record: logging.LogRecord) -> None:
    """A task's beginning or end: who and how, never with what; of a defect, where and of what kind it is."""
    where = ""
    if record.exc_info and not (isinstance(record.args, dict) and record.args.get("name") in WITHOUT_TEXT):
        kind, _, frames = record.exc_info
        where = origin_of(kind, frames)
        record.exc_info, record.exc_text = None, None
    if isinstance(record.args, dict):
        record.args = _without_arguments(record.args, where)
    data = getattr(record, "data", None)
    if isinstance(data, dict):
        record.__dict__["data"] = _without_arguments(data, where)


def _without_arguments(context: dict[str, Any], where: str) -> dict[str, Any]:
    told = {key: _HIDDEN if key in ("args", "kwargs") else value for key, value in context.items()}
    if where:
        return {**told, "exc": where, "traceback": _HIDDEN}
    error = told.get("exc")
    if isinstance(error, str) and error.startswith(_QUOTING):
        told["exc"] = f"{_QUOTING[:-1]} (what it says is in the result)"
    return told


_CLEANERS: dict[str, Callable[[logging.LogRecord], None]] = {
    "celery.worker.consumer.consumer": _message,
    "kombu.transport.redis": _message,
    "celery.pool": _pool,
    "celery.app.trace": _task,
    "celery.worker.strategy": _task,
}
