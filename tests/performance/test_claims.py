"""Six claimers at once: none gets what another got, and they are quick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.claimer import claim_at_once
from tests.contract.graphs import GRAPH_KINDS, GraphAddress, episodes
from ww.bench.figure import Scale

ROWS = {False: 6_000, True: 20_000}
"""By whether the scale is full."""
CLAIMERS = 6
LEAST: Mapping[bool, Mapping[str, float]] = {
    False: {"sqlite": 1_000, "neo4j": 250},
    True: {"sqlite": 2_000, "neo4j": 2_000},
}
"""Claims per second; where a server shares two cores with its six clients, 250 still tell a queue from a jam."""


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
    graph = address.open()
    rows = ROWS[scale.full]
    graph.add(episodes(rows))

    answers, seconds = claim_at_once(address, claimers=CLAIMERS, size=size)

    got = [name for answer in answers for name in answer]
    counts = graph.counts()
    graph.close()
    print(f"{kind}, {size} at a time: {rows / seconds:,.0f} claims/s, shares {[len(answer) for answer in answers]}")
    assert len(got) == len(set(got)) == rows
    assert (counts.leased, counts.balanced) == (rows, True)
    assert rows / seconds > LEAST[scale.full][kind]
