"""The schema of the graph file, as numbered SQL files that are applied once each and in order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib import resources
from pathlib import Path

from ww_core.errors import ConfigurationError

APPLICATION_ID = 0x57574752
"""``WWGR``: SQLite's header field that tells this file from any other."""


@cache
def scripts() -> tuple[str, ...]:
    """The SQL of every migration; the n-th one leads to schema version n."""
    files = (file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql"))
    return tuple(file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.name))


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring the file to the newest schema, in one transaction.

    Raises ConfigurationError where the file is of a newer version or no graph file at all.
    """
    if _version(connection, path) == len(scripts()):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # another process may have been faster
        for number in range(_version(connection, path), len(scripts())):
            for statement in _statements(scripts()[number]):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(scripts())}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if application != APPLICATION_ID and connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise ConfigurationError(
            f"{path} is an SQLite file of another program", hint="choose another data_dir, or move that file away"
        )
    if version > len(scripts()):
        raise ConfigurationError(
            f"{path} has schema version {version}; this World Weaver knows versions up to {len(scripts())}",
            hint="upgrade world-weaver, or choose another data_dir",
        )
    return version


def _statements(script: str) -> Iterator[str]:
    """The script's statements, one by one: executescript would commit the transaction they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
