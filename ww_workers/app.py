"""The Celery app ``ww``. Its configuration is read when it is first needed, never from a celeryconfig module."""

from __future__ import annotations

import logging
import sys

from celery import Celery
from celery.signals import after_setup_logger, after_setup_task_logger

from ww_core.config import Settings
from ww_core.observability.logs import as_json, configure
from ww_workers import discretion, ending, lifecycle, losses, visibility

app = Celery("ww", set_as_current=False, include=["ww_workers.tasks"])
app.config_from_object("ww_workers.configuration")
discretion.install()
ending.install(app)
lifecycle.install()
losses.install()
visibility.install()


def _configure_logging(loglevel: int | None = None, **_: object) -> None:
    """Our own records as the setting log_format says; the others as Celery does, or as JSON where that is asked for."""
    log_format = Settings().log_format
    configure(log_format=log_format, level=loglevel or logging.WARNING, stream=sys.stderr)
    if log_format == "json":
        as_json("", "multiprocessing")


def _configure_task_logging(**_: object) -> None:
    if Settings().log_format == "json":
        as_json("celery.task")


after_setup_logger.connect(_configure_logging, weak=False, dispatch_uid="ww-logging")
after_setup_task_logger.connect(_configure_task_logging, weak=False, dispatch_uid="ww-task-logging")
