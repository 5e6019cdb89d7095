"""A shard searches with as many threads as half of the machine's cores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import Fingerprint

TASKS = Path("/proc/self/task")


def searching() -> set[int]:
    """The threads of this process that search."""
    named = {int(task.name): (task / "comm").read_text("utf-8") for task in TASKS.iterdir()}
    return {number for number, name in named.items() if name.startswith("edge-search")}


@pytest.mark.skipif(not TASKS.exists(), reason="the names of threads are read from /proc, which is not there")
def test_a_made_and_an_opened_shard_search_with_half_of_the_cores(tmp_path: Path) -> None:
    others = searching()
    wanted = max(1, (os.cpu_count() or 1) // 2)
    for _ in range(2):
        shard = Shard(tmp_path, namespace="ww")
        shard.ensure(Fingerprint("m", "1", 4, "mean", True))
        assert len(searching() - others) == wanted
        shard.close()
