"""Six claimers at once: none gets what another got, and together they are not far behind one who has no rival.

That none gets what another got is held among more rows by tests/contract/test_graph_concurrency.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.claimer import claim_at_once
from tests.contract.graphs import GRAPH_KINDS, GraphAddress, episodes
from ww.bench.figure import Scale
from ww_core.stores.ports import GraphStore

ROWS: Mapping[bool, Mapping[str, int]] = {
    False: {"sqlite": 6_000, "neo4j": 1_000},
    True: {"sqlite": 20_000, "neo4j": 20_000},
}
"""By whether the scale is full."""
AT_ONCE = 500
"""Rows of one transaction: a server that shares its cores with others does 2000 too slowly to answer in time."""
CLAIMERS = 6
LEAST_SHARE = 0.2
"""Of the rate of one claimer without rivals, a process as well; where a server shares two cores with its six clients,
that still tells a queue from a jam."""
LEAST_RATE = 2_000
"""Claims per second, at full scale."""


@pytest.mark.parametrize("size", [50, pytest.param(512, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", GRAPH_KINDS)
def test_six_claimers_take_all(
    kind: str, size: int, scale: Scale, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    location = str(tmp_path / "graph.db")
    if kind == "neo4j":
        uri, password = request.getfixturevalue("neo4j_server")
        location = f"{uri} {password} t{uuid4().hex[:12]}"
    address = GraphAddress(kind, location)
    rows = ROWS[scale.full][kind]
    with closing(address.open()) as graph:
        graph.ping()
        _add(graph, rows, "a")
        (_,), alone = claim_at_once(address, claimers=1, size=size)
        _add(graph, rows, "e")
        answers, seconds = claim_at_once(address, claimers=CLAIMERS, size=size)
        counts = graph.counts()

    got = [name for answer in answers for name in answer]
    rate = rows / seconds
    print(f"{kind}, {size} at a time: {rate:,.0f} claims/s, one {rows / alone:,.0f}; shares {[*map(len, answers)]}")
    assert len(got) == len(set(got)) == rows
    assert (counts.leased, counts.balanced) == (2 * rows, True)
    assert alone / seconds > LEAST_SHARE
    assert not scale.full or rate > LEAST_RATE


def _add(graph: GraphStore, rows: int, prefix: str) -> None:
    for start in range(0, rows, AT_ONCE):
        graph.add(episodes(min(AT_ONCE, rows - start), start=start, prefix=prefix))
