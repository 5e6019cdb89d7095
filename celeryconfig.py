"""The Celery configuration in force, for people to read and for tools that look for a module of this name.

The app itself reads ww_workers.configuration and never this file.
"""

from ww_workers.configuration import *  # noqa: F403
