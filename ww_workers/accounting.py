"""Every run of a task in the error rate: here and nowhere else, for Celery workers and dispatchers alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ww_core.observability.metrics import ATTEMPTS, CALLERS_MISTAKES, FAILURES, process_metrics

BY_EPISODE = frozenset({"ww.embed_pending", "ww.store"})
"""Tasks whose work counts its episodes itself. Of these only an error that it has not counted is left to be counted."""


@contextmanager
def counted(task: str, *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Count the block as one attempt of ``task``, and as a failure where it raises.

    A caller's mistake is an attempt alone. What is ``passing`` (the task goes on elsewhere) or no Exception (the
    process ends) is neither: the task has not been tried to its end.
    """
    metrics = process_metrics()
    before = metrics.total(FAILURES)
    try:
        yield
    except passing:
        raise
    except CALLERS_MISTAKES:
        if task not in BY_EPISODE:
            metrics.increment(ATTEMPTS)
        raise
    except Exception as error:
        if task not in BY_EPISODE or metrics.total(FAILURES) == before:
            metrics.tried_in_vain(task.removeprefix("ww."), error)
        raise
    if task not in BY_EPISODE:
        metrics.increment(ATTEMPTS)
