"""Every store the conformance suites run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.graphs import GRAPH_KINDS, Clock, GraphAddress
from tests.contract.vector_stores import ADAPTERS, MODEL, SERVERS, OwnerProcess, opened
from ww_core.stores.ports import GraphStore, VectorStore


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


@pytest.fixture(scope="package")
def owner() -> Iterator[OwnerProcess]:
    """The process that owns the vectors of a store that is a client: one for the whole folder."""
    process = OwnerProcess()
    yield process
    process.close()


@pytest.fixture(params=ADAPTERS)
def bare(request: pytest.FixtureRequest, quick_path: Path, owner: OwnerProcess) -> Iterator[VectorStore]:
    """A vector store of each kind, without a collection."""
    if request.param in SERVERS and not os.environ.get("QDRANT_URL"):
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test")
    with opened(request.param, quick_path, owner) as store:
        yield store


@pytest.fixture
def store(bare: VectorStore) -> VectorStore:
    """A vector store of each kind, empty."""
    bare.ensure(MODEL)
    return bare
