"""A worker's consumer that no message can end: what is no message of Celery's at all is dropped, and said so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer


class CarefulConsumer(Consumer):  # type: ignore[misc]  # Celery has no types
    """Celery's own takes the shape of a body on trust: one that breaks it ends the worker, goes back to the queue, and
    ends the next one."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        handle: Callable[[Any], Any] = super().create_task_handler(*args, **kwargs)

        def careful(message: Any) -> Any:
            try:
                good = legible(message.headers, message.payload)
            except Exception:  # it cannot be decoded, which Celery says itself
                good = True
            if good:
                return handle(message)
            return self.on_invalid_task(None, message, InvalidTaskError("it is no message of Celery's"))

        return careful


def legible(headers: object, payload: object) -> bool:
    """Whether a decoded message has the parts of Celery's protocol 2, or 1."""
    if isinstance(headers, Mapping) and "task" in headers:
        if not (isinstance(payload, list | tuple) and len(payload) == 3):
            return False
        arguments, keywords, embedded = payload
        return (
            isinstance(headers.get("id"), str)
            and isinstance(arguments, list | tuple)
            and isinstance(keywords, Mapping)
            and isinstance(embedded, Mapping | None)
        )
    return (
        isinstance(payload, Mapping)
        and isinstance(payload.get("id"), str)
        and isinstance(payload.get("args", []), list)
        and isinstance(payload.get("kwargs", {}), Mapping)
    )
