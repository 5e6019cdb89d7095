"""A process that is killed before any of its durable writes leaves the state before them, or the one after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, run_python

KILL = "import runpy; runpy.run_module('tests.integration.killing', run_name='__main__', alter_sys=True)"


@pytest.mark.parametrize(("work", "steps"), [("run", 12), ("rollback", 6), ("decay", 2)])
def test_what_a_kill_leaves_is_the_state_before_or_after(work: str, steps: int, quick_path: Path) -> None:
    held(json.loads(run_python(KILL, work, str(quick_path), cwd=ROOT, within=300)), steps)


@pytest.mark.parametrize(("work", "steps"), [("run", 12), ("rollback", 7), ("decay", 2)])
@pytest.mark.timeout(600)
def test_so_it_is_with_the_graph_on_neo4j(
    work: str, steps: int, neo4j_server: tuple[str, str], quick_path: Path
) -> None:
    held(json.loads(run_python(KILL, work, str(quick_path), *neo4j_server, cwd=ROOT, within=540)), steps)


def held(killed: dict[str, Any], steps: int) -> None:
    """Readers see the state before or after, and who comes next gets to the state after."""
    before, after = killed["before"], killed["after"]
    assert json.loads(before["clusters"])["clusters"], "a run was published before"
    assert before["flat"] != after["flat"]
    assert len(killed["left"]) >= steps, killed["kinds"]
    for left in killed["left"]:
        state = before if left["flat"] == before["flat"] else after
        assert (left["clusters"], left["flat"]) == (state["clusters"], state["flat"])
        # points may be in cells too many: what a search by clusters finds then is never less of what is nearest
        assert shared(left) >= shared(state)
    for mended in killed["mended"]:
        assert mended == after


def shared(seen: dict[str, Any]) -> int:
    """How many of the answers of a search of everything a search by clusters gives as well."""
    flat, routed = (
        [{name for name, *_ in hits} for hits in json.loads(seen[mode])] for mode in ("flat", "hierarchical")
    )
    return sum(len(one & other) for one, other in zip(flat, routed, strict=True))
