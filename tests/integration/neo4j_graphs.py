"""How tests open graph stores on the Neo4j server, look past them, and make it fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from neo4j import Driver, GraphDatabase
from neo4j.exceptions import Neo4jError

from ww_core.stores.servers.neo4j import Neo4jGraphStore

Open = Callable[..., Neo4jGraphStore]


@contextmanager
def _driver(location: str) -> Iterator[Driver]:
    uri, password, _ = location.split(" ")
    with GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver:
        yield driver


def _rows(driver: Driver, query: str, **parameters: object) -> list[list[Any]]:
    records, _, _ = driver.execute_query(query, parameters)  # type: ignore[arg-type]
    return [list(record.values()) for record in records]


def cypher(location: str, query: str, **parameters: object) -> list[list[object]]:
    with _driver(location) as driver:
        return _rows(driver, query, **{"ns": location.split(" ")[-1], **parameters})


_NODES = """MATCH (n) WHERE n.ns = $ns WITH labels(n) AS labels, elementId(n) AS name, properties(n) AS properties
RETURN labels, collect(name), collect(properties)"""
_RELATIONS = """MATCH (a)-[r]->(b) WHERE a.ns = $ns
RETURN type(r), collect([elementId(a), elementId(b), properties(r)])"""
_MAKE = "UNWIND $all AS one CREATE (n:{labels}) SET n = one RETURN elementId(n)"
_RELATE = """UNWIND $all AS one MATCH (a) WHERE elementId(a) = one[0] MATCH (b) WHERE elementId(b) = one[1]
CREATE (a)-[r:{kind}]->(b) SET r = one[2]"""


def copied(location: str, namespace: str) -> str:
    """Copy all that a deployment has on the server into a namespace that nobody uses; that namespace."""
    before = location.split(" ")[-1]

    def moved(properties: dict[str, Any]) -> dict[str, Any]:
        # names of queues and leases begin with the namespace
        return {
            key: value.replace(before, namespace) if isinstance(value, str) else value
            for key, value in properties.items()
        }

    copies: dict[str, Any] = {}
    with _driver(location) as driver:
        for labels, names, each in _rows(driver, _NODES, ns=before):
            made = _rows(driver, _MAKE.format(labels=":".join(labels)), all=[moved(one) for one in each])
            copies |= zip(names, (name for (name,) in made), strict=True)
        for kind, each in _rows(driver, _RELATIONS, ns=before):
            rows = [[copies[a], copies[b], moved(properties)] for a, b, properties in each]
            _rows(driver, _RELATE.format(kind=kind), all=rows)
    return namespace


def deadlock() -> Neo4jError:
    return Neo4jError._hydrate_neo4j(code="Neo.TransientError.Transaction.DeadlockDetected", message="deadlock")
