"""Which child of a worker embeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import ROOT, run_python
from ww_workers import ending, turns
from ww_workers.lifecycle import QUEUES_VARIABLE

SIBLING = "from ww_workers import turns\nwith turns.embedding() as mine: print(mine)"


@pytest.mark.parametrize(("queues", "both"), [("ww.embed,ww.query", False), ("ww.embed", True)])
def test_one_at_a_time_where_the_worker_answers_queries(
    queues: str, both: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {ending.STOP_VARIABLE: str(tmp_path / "worker" / "stop"), QUEUES_VARIABLE: queues}
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    def sibling() -> bool:
        return run_python(SIBLING, cwd=tmp_path, PYTHONPATH=str(ROOT), **given) == "True\n"

    with turns.embedding() as mine:
        assert mine
        assert sibling() is both
    assert sibling()
