"""A graph store of each kind with two sessions that are embedded and not consolidated yet."""

from __future__ import annotations

import pytest

from tests.contract.graphs import clear, embed, episodes
from ww_core.stores.ports import GraphStore


@pytest.fixture
def graph(graph: GraphStore) -> GraphStore:
    graph.add([*episodes(8), *episodes(3, session="t", prefix="t")])
    embed(graph)
    clear(graph)
    return graph
