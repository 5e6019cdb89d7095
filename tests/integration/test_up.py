"""``ww up`` as a process: one system for a data directory, ended by Ctrl-C with everything it started."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import BOUND, ROOT, clean_environment, until
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_workers.settings import BEAT_TICK


def _up(data_dir: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "ww.cli", "--json", "--data-dir", str(data_dir), "up", *more]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    """The broker, one worker for maintenance, and beat."""
    data_dir, log = tmp_path / "data", tmp_path / "up.log"
    with ExitStack() as ends, log.open("wb") as err, (tmp_path / "answer").open("wb") as out:
        process = subprocess.Popen(
            _up(data_dir, "--pools", "maintain", "--no-flower"),
            env=clean_environment(PYTHONPATH=str(ROOT)),
            stdout=out,
            stderr=err,
        )
        ends.callback(process.wait)
        ends.callback(process.kill)
        yield process, data_dir


def test_one_system_a_directory_that_ticks_at_once_and_ends_with_ctrl_c(
    system: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    process, data_dir = system
    until(lambda: (tmp_path / "answer").read_text(), what=f"it runs: {(tmp_path / 'up.log').read_text()[-2000:]}")
    second = subprocess.run(
        _up(data_dir), env=clean_environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=BOUND
    )
    assert (second.returncode, json.loads(second.stdout)["error"]["type"]) == (1, "Busy")
    assert str(process.pid) in second.stdout

    graph = Deployment(Settings(data_dir=data_dir)).graph
    until(lambda: graph.get_fact(BEAT_TICK) is not None, what="beat ticked")
    graph.close()

    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    process.send_signal(signal.SIGINT)
    assert process.wait(BOUND) == 130
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
