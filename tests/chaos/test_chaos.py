"""A short trial on real processes: workers, producers and Redis killed, frozen, flushed and poisoned."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, clean_environment
from tests.support.qdrant_server import binary

WITHIN = 580.0
"""Seconds: on an idle machine a trial takes one minute, on a busy one several."""


SHARD = ()
SERVER = ("--qdrant",)


@pytest.mark.timeout(WITHIN + 20)
@pytest.mark.parametrize("vectors", [SHARD, SERVER], ids=["shard", "qdrant"])
def test_nothing_is_lost_or_doubled_whatever_fails(tmp_path: Path, vectors: tuple[str, ...]) -> None:
    options = [*vectors, binary()] if vectors else []
    if shutil.which("redis-server") is None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ww.cli",
            "chaos",
            "--minutes",
            "0.3",
            "--seed",
            "1",
            "--json",
            "--data-dir",
            "scratch",
            *options,
        ],
        cwd=tmp_path,
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout
    report = json.loads(done.stdout)
    assert len(report["faults"]) >= 6
    assert not vectors or {"qdrant_stopped", "qdrant_frozen"} & set(report["faults"])
    assert all(report["faults"].values())
    assert (report["lost"], report["doubled"], report["returned"]) == (0, 0, 0)
    assert report["attempted"] >= report["acknowledged"] > 0
    assert report["dead"] == report["poisoned"], "an outage moves nothing to dead"
    assert report["verification"]["ok"]
    assert report["recovery_seconds"] > 0
    assert list((tmp_path / "scratch").iterdir()) == [], "it takes its directory away"
