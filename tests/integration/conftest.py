"""Fixtures that several modules of this folder use."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.graphs import neo4j_settings
from tests.integration.command_line import Cli
from tests.integration.consolidating import World
from tests.integration.neo4j_graphs import Open
from tests.integration.recalling import Shelf, opened, with_facts
from ww.memory.episodic import EpisodicMemory
from ww_core.stores.servers.neo4j import Neo4jGraphStore


@pytest.fixture
def location(neo4j_server: tuple[str, str]) -> str:
    return f"{neo4j_server[0]} {neo4j_server[1]} t{uuid4().hex[:12]}"


@pytest.fixture
def open_graph(location: str) -> Iterator[Open]:
    """Opens stores of one namespace, with other settings."""
    graphs: list[Neo4jGraphStore] = []

    def open_graph(**changes: object) -> Neo4jGraphStore:
        graphs.append(Neo4jGraphStore(neo4j_settings(location, **changes)))
        return graphs[-1]

    yield open_graph
    for graph in graphs:
        graph.close()


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    """Empty stores to recall from."""
    with opened(tmp_path) as empty:
        yield empty


@pytest.fixture
def facts(shelf: Shelf) -> Shelf:
    return with_facts(shelf)


@pytest.fixture
def world(quick_path: Path) -> Iterator[World]:
    made = World(quick_path)
    yield made
    made.close()


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[EpisodicMemory]:
    async with EpisodicMemory(data_dir=tmp_path / "data") as made:
        yield made


@pytest.fixture
def cli(clean: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(clean / "memory", capsys)
