"""What a worker says of the tasks it was sent, in events, in Flower and in answers to ``inspect``: never a text.

The sender of a message writes down how its arguments look, and an application that knows nothing of this package writes
down all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery.worker.request import Request

from ww_workers.discretion import WITHOUT_TEXT

SHOWN = ("session_id", "episode_id", "run_id", "dry_run", "outcome")
"""Arguments that are shown as they are, before the others."""
_MAX_CHARS = 60


class QuietRequest(Request):  # type: ignore[misc]  # Celery has no types
    """A request whose arguments are shown by their sizes, but for names and flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._argsrepr = f"({', '.join(size(value) for value in self._args)})"
        self._kwargsrepr = shown(self._kwargs)

    def info(self, safe: bool = False) -> Any:
        """What ``inspect`` answers: with the arguments as they are shown, never as they are."""
        return super().info(safe=True)

    def send_event(self, event: str, **fields: Any) -> None:
        """Tell of the task; of its error, where it was sent a text, only the kind: what it says is in the result."""
        if fields.get("exception") and self.task.name not in WITHOUT_TEXT:
            kind = str(fields["exception"]).partition("(")[0]
            fields |= {"exception": f"{kind} (what it says is in the result)", "traceback": ""}
        super().send_event(event, **fields)


def shown(arguments: Mapping[str, Any]) -> str:
    """``{session_id='ops', content=<27 characters>}``; what is not given is left out."""
    given = {key: one for key, one in arguments.items() if one is not None and one is not False}
    parts = [f"{key}={value(key, given[key])}" for key in sorted(given, key=_order)]
    return f"{{{', '.join(parts)}}}"


def value(key: str, given: Any) -> str:
    text = repr(given)
    return text if key in SHOWN and len(text) <= _MAX_CHARS else size(given)


def size(given: Any) -> str:
    """How much it is, or what."""
    if isinstance(given, str):
        return f"<{len(given)} characters>"
    if isinstance(given, Mapping | list):
        return f"<{len(given)} values>"
    return repr(given) if given is None or isinstance(given, bool | int | float) else f"<{type(given).__name__}>"


def _order(key: str) -> tuple[int, str]:
    return SHOWN.index(key) if key in SHOWN else len(SHOWN), key
