"""A SQLite graph store of a test's own, and its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.graphs import Clock
from ww_core.stores.embedded.graph import SqliteGraphStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "graph.db"


@pytest.fixture
def graph(path: Path) -> Iterator[SqliteGraphStore]:
    store = SqliteGraphStore(path, clock=Clock())
    yield store
    store.close()
