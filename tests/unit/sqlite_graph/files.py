"""What tests do to a SQLite graph store from outside: to its file, and in a forked child."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

LEASE = 60.0


def in_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked child; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # whatever it is, the child must not return into the test
            os._exit(99)
    return os.waitpid(pid, 0)[1]


def sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
