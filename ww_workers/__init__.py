"""Background work: the Celery app, its tasks and schedule, and the local dispatcher."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # ``celery -A ww_workers`` looks for an app of this name; whoever imports the package for something else loads none
    if name == "celery":
        from ww_workers.app import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
