"""``ww up`` as a process: one system for a data directory, ended by Ctrl-C with everything it started."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
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
        ends.callback(_end, process)
        yield process, data_dir


def _end(process: subprocess.Popen[bytes]) -> None:
    """Politely, so that it ends what it started; by force what is left."""
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(BOUND)
    finally:
        _kill([*children, psutil.Process(process.pid)] if process.poll() is None else children)
        process.wait()


def _kill(processes: list[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            one.kill()


def _alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def _runs(process: subprocess.Popen[bytes], tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    until(lambda: (tmp_path / "answer").read_text() or process.poll() is not None, what="it runs")
    assert process.poll() is None, log.read_text()[-2000:]


def _second(data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _up(data_dir), env=clean_environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, timeout=BOUND
    )


def test_one_system_a_directory_that_ticks_at_once_and_ends_with_ctrl_c(
    system: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    process, data_dir = system
    _runs(process, tmp_path)
    second = _second(data_dir)
    assert (second.returncode, json.loads(second.stdout)["error"]["type"]) == (1, "Busy")
    assert str(process.pid) in second.stdout

    graph = Deployment(Settings(data_dir=data_dir)).graph
    until(lambda: graph.get_fact(BEAT_TICK) is not None, what="beat ticked")
    graph.close()

    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 3
    process.send_signal(signal.SIGINT)
    assert process.wait(BOUND) == 130
    until(lambda: not _alive(children), what="all that it started has ended")


def test_a_hangup_ends_it_and_what_outlives_a_killed_one_holds_the_lock(
    system: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    process, data_dir = system
    _runs(process, tmp_path)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    try:
        assert _alive(children)
        second = _second(data_dir)
        assert (second.returncode, json.loads(second.stdout)["error"]["type"]) == (1, "Busy")
    finally:
        _kill(children)
    until(lambda: not _alive(children), what="what it started has ended")

    with (tmp_path / "up.log").open("ab") as err, (tmp_path / "answer").open("wb") as out:
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, as it should be
        try:
            third = subprocess.Popen(
                _up(data_dir, "--pools", "maintain", "--no-beat", "--no-flower"),
                env=clean_environment(PYTHONPATH=str(ROOT)),
                stdout=out,
                stderr=err,
            )
        finally:
            signal.signal(signal.SIGHUP, before)
    try:
        _runs(third, tmp_path)
        children = psutil.Process(third.pid).children(recursive=True)
        third.send_signal(signal.SIGHUP)
        assert third.wait(BOUND) == 0
        until(lambda: not _alive(children), what="all that it started has ended")
    finally:
        _end(third)
