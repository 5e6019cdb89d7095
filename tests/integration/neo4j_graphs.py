"""How tests open graph stores on the Neo4j server, look past them, and make it fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neo4j import GraphDatabase
from neo4j.exceptions import Neo4jError

from ww_core.stores.servers.neo4j import Neo4jGraphStore

Open = Callable[..., Neo4jGraphStore]


def cypher(location: str, query: str, **parameters: object) -> list[list[object]]:
    uri, password, namespace = location.split(" ")
    with GraphDatabase.driver(uri, auth=("neo4j", password), notifications_min_severity="OFF") as driver:
        records, _, _ = driver.execute_query(query, {"ns": namespace, **parameters})  # type: ignore[arg-type]
        return [list(record.values()) for record in records]


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
    nodes: list[Any] = cypher(location, _NODES)
    for labels, names, each in nodes:
        made = cypher(location, _MAKE.format(labels=":".join(labels)), all=[moved(one) for one in each])
        copies |= zip(names, (name for (name,) in made), strict=True)
    relations: list[Any] = cypher(location, _RELATIONS)
    for kind, each in relations:
        rows = [[copies[a], copies[b], moved(properties)] for a, b, properties in each]
        cypher(location, _RELATE.format(kind=kind), all=rows)
    return namespace


def deadlock() -> Neo4jError:
    return Neo4jError._hydrate_neo4j(code="Neo.TransientError.Transaction.DeadlockDetected", message="deadlock")
