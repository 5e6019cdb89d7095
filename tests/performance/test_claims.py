"""Six claimers at once: none gets what another got, and they are quick."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.claimer import claim_at_once
from tests.contract.graphs import GRAPH_KINDS, GraphAddress, episodes

ROWS = 20_000
CLAIMERS = 6
LEAST = 2_000
"""Claims per second."""


@pytest.mark.full
@pytest.mark.parametrize("size", [50, 512])
@pytest.mark.parametrize("kind", GRAPH_KINDS)
def test_six_claimers_take_twenty_thousand(
    kind: str, size: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    location = str(tmp_path / "graph.db")
    if kind == "neo4j":
        uri, password = request.getfixturevalue("neo4j_server")
        location = f"{uri} {password} t{uuid4().hex[:12]}"
    address = GraphAddress(kind, location)
    graph = address.open()
    graph.add(episodes(ROWS))

    answers, seconds = claim_at_once(address, claimers=CLAIMERS, size=size)

    got = [name for answer in answers for name in answer]
    counts = graph.counts()
    graph.close()
    print(f"{kind}, {size} at a time: {ROWS / seconds:,.0f} claims/s, shares {[len(answer) for answer in answers]}")
    assert len(got) == len(set(got)) == ROWS
    assert (counts.leased, counts.balanced) == (ROWS, True)
    assert ROWS / seconds >= LEAST
