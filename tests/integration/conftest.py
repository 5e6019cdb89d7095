"""Fixtures that several modules of this folder use."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.contract.graphs import neo4j_settings
from tests.integration.neo4j_graphs import Open
from ww_core.stores.servers.neo4j import Neo4jGraphStore


@pytest.fixture
def location(neo4j_server: tuple[str, str]) -> str:
    return f"{neo4j_server[0]} {neo4j_server[1]} t{uuid4().hex[:12]}"


@pytest.fixture
def open_graph(location: str) -> Iterator[Open]:
    """Opens stores of one namespace, with other settings."""
    opened: list[Neo4jGraphStore] = []

    def open_graph(**changes: object) -> Neo4jGraphStore:
        opened.append(Neo4jGraphStore(neo4j_settings(location, **changes)))
        return opened[-1]

    yield open_graph
    for graph in opened:
        graph.close()
