"""What tests do to a SQLite graph store from outside: to its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

LEASE = 60.0


def sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
