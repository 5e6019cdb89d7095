"""Every store the conformance suites run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.graphs import GRAPH_KINDS, Clock, GraphAddress
from ww_core.stores.ports import GraphStore


@pytest.fixture
def clock() -> Clock:
    """Moves only when told to."""
    return Clock()


@pytest.fixture(params=GRAPH_KINDS)
def graph_address(request: pytest.FixtureRequest, tmp_path: Path) -> GraphAddress:
    """An empty graph store of each kind."""
    match request.param:
        case "sqlite":
            return GraphAddress("sqlite", str(tmp_path / "graph.db"))
        case "neo4j":
            uri, password = request.getfixturevalue("neo4j_server")
            return GraphAddress("neo4j", f"{uri} {password} t{uuid4().hex[:12]}")
    raise ValueError(request.param)


@pytest.fixture
def graph(graph_address: GraphAddress, clock: Clock) -> Iterator[GraphStore]:
    store = graph_address.open(clock)
    yield store
    store.close()
