"""The peer of storing on Neo4j: the same rows by a bare UNWIND + MERGE."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import LiteralString
from uuid import uuid4

from neo4j import GraphDatabase

from ww_core.models import Episode
from ww_core.stores.servers.neo4j.rows import to_place
from ww_core.stores.values import to_us

SCHEMA = (
    "CREATE CONSTRAINT {label}_id IF NOT EXISTS FOR (e:{label}) REQUIRE e.id IS UNIQUE",
    "CREATE INDEX {label}_state IF NOT EXISTS FOR (e:{label}) ON (e.queue, e.t)",
    "CREATE INDEX {label}_place IF NOT EXISTS FOR (e:{label}) ON (e.session, e.place)",
    "CALL db.awaitIndexes(60)",
)
MERGE = "UNWIND $rows AS row MERGE (e:{label} {{id: row.id}}) SET e += row"
DELETE = "MATCH (e:{label}) WITH e LIMIT 10000 DETACH DELETE e RETURN count(*) AS deleted"
DROP = ("DROP CONSTRAINT {label}_id", "DROP INDEX {label}_state", "DROP INDEX {label}_place")


class BareMerge:
    """Rows on a unique key with two more indexes, under a label of its own, which is gone when it is closed."""

    def __init__(self, uri: str, password: str) -> None:
        self.label: LiteralString = f"Bare{uuid4().hex[:12]}"
        self._driver = GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF")

    def __enter__(self) -> BareMerge:
        for statement in SCHEMA:
            self._driver.execute_query(self._named(statement))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._driver.execute_query(self._named(DELETE)).records[0]["deleted"]:
            pass
        for statement in DROP:
            self._driver.execute_query(self._named(statement))
        self._driver.close()

    def write(self, batch: Sequence[Episode]) -> None:
        """What an episode has when it is stored, in one transaction."""
        now = time.time_ns() // 1000
        rows = []
        for i, e in enumerate(sorted(batch, key=lambda e: e.episode_id)):
            at = to_us(e.timestamp or datetime.now(UTC))
            rows.append(
                {
                    "id": e.episode_id,
                    "session": e.session_id,
                    "at": at,
                    "place": to_place(at, e.position, e.episode_id),
                    "position": e.position,
                    "content": e.content,
                    "importance": e.importance,
                    "queue": "bare/new",
                    "state": "pending",
                    "stored_at": now,
                    "t": (now + i) * 1024,
                }
            )
        self._driver.execute_query(self._named(MERGE), rows=rows)

    def _named(self, statement: LiteralString) -> LiteralString:
        return statement.format(label=self.label)
