"""Kills a process at every durable write of a consolidation, a rollback or a decay, and says what is left each time.

Run as ``python -m tests.integration.killing WORK DIRECTORY``; prints JSON. The process itself opens no store: every
step happens in a child of its own, which is cheap because the modules are loaded before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

import ww_core.consolidation.pipeline  # noqa: F401 - loaded once, before the children
from tests.integration.consolidating import SESSION, START, World
from tests.integration.observing import observed
from tests.unit.consolidation.blobs import blobs
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.fading import fade
from ww_core.maintenance.refresh import Refresh
from ww_core.models import Run, Vector
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.vectors.shard import Shard

TOPICS = ["nightly backup", "open invoice", "coffee machine", "failing test"]
YEARS = timedelta(days=3650)
FADED_BELOW = 0.2


class Steps:
    """Counts the commits and the vector updates of this process, and kills it before the one numbered ``fatal``."""

    def __init__(self, fatal: int) -> None:
        self._fatal = fatal
        self.taken = 0
        commit, writable = Database.write, Shard._writable

        @contextmanager
        def write(database: Database) -> Iterator[sqlite3.Connection]:
            with commit(database) as connection:
                yield connection
                self.step()

        Database.write = write  # type: ignore[method-assign]
        Shard._writable = lambda shard: _Watched(writable(shard), self.step)  # type: ignore[method-assign]

    def step(self) -> None:
        self.taken += 1
        if self.taken == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


class _Watched:
    """A shard whose updates are steps."""

    def __init__(self, shard: Any, step: Callable[[], None]) -> None:
        self._shard, self._step = shard, step

    def update(self, operation: Any) -> Any:
        self._step()
        return self._shard.update(operation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)
