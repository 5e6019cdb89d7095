"""The Celery configuration of the default settings, name by name, as Celery reads a configuration module."""

from __future__ import annotations

from ww_core.config import Settings
from ww_workers.settings import celery_settings

globals().update(celery_settings(Settings()))
