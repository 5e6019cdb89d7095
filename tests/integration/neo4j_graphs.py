"""How tests open graph stores on the Neo4j server, look past them, and make it fail."""

from __future__ import annotations

from collections.abc import Callable

from neo4j import GraphDatabase
from neo4j.exceptions import Neo4jError

from ww_core.stores.servers.neo4j import Neo4jGraphStore

Open = Callable[..., Neo4jGraphStore]


def cypher(location: str, query: str, **parameters: object) -> list[list[object]]:
    uri, password, namespace = location.split(" ")
    with GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver:
        records, _, _ = driver.execute_query(query, {"ns": namespace, **parameters})  # type: ignore[arg-type]
        return [list(record.values()) for record in records]


def deadlock() -> Neo4jError:
    return Neo4jError._hydrate_neo4j(code="Neo.TransientError.Transaction.DeadlockDetected", message="deadlock")
