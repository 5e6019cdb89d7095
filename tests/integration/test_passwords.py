"""Passwords in URLs: no process shows them in its arguments or its title, in a log, an error, an answer or a page."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.processes import ROOT, RedisServer, Worker, clean_environment, free_ports, until

SECRET = "quagga-opens"
AWAY = {
    "T4DM_NEO4J_URI": f"bolt://neo4j:{SECRET}@127.0.0.1:1",
    "T4DM_QDRANT_URL": f"http://user:{SECRET}@127.0.0.1:1",
}
"""Servers that nobody can reach: what workers say of them is part of the test."""


class Processes:
    """Commands of ours, their logs, and all that their process trees show of themselves."""

    def __init__(self, directory: Path, given: dict[str, str]) -> None:
        self._directory = directory
        self._environment = clean_environment(PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore", **given)
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *arguments: str) -> None:
        with (self._directory / f"{name}.log").open("wb") as log:
            self._started[name] = subprocess.Popen(
                self._command(*arguments), env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def log(self, name: str) -> str:
        assert self._started[name].poll() is None, (self._directory / f"{name}.log").read_text()[-2000:]
        return (self._directory / f"{name}.log").read_text()

    def run(self, *arguments: str) -> str:
        """All that a command prints."""
        done = subprocess.run(
            self._command(*arguments), env=self._environment, capture_output=True, text=True, timeout=120
        )
        return done.stdout + done.stderr

    def shown(self) -> str:
        """Arguments, which titles replace, of every process and its children."""
        trees = [psutil.Process(process.pid) for process in self._started.values()]
        return "\n".join(
            f"{one.name()} {' '.join(one.cmdline())}" for top in trees for one in (top, *top.children(recursive=True))
        )

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "ww.cli", "--data-dir", str(self._directory / "data"), *arguments]

    def close(self) -> None:
        for process in self._started.values():
            process.send_signal(signal.SIGKILL)  # children of a worker die with it
            process.wait()


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_nobody_shows_a_password(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path, ends: ExitStack
) -> None:
    with redis_server.client() as client:
        client.config_set("requirepass", SECRET)
    redis_server.url = redis_server.url.replace("//", f"//:{SECRET}@")
    (port,) = free_ports(1)
    processes = Processes(tmp_path, {"T4DM_REDIS_URL": redis_server.url, **AWAY})
    ends.callback(processes.close)
    processes.start("worker", "worker", "--pool", "maintain", "-v")
    processes.start("beat", "beat", "-v")
    processes.start("flower", "flower", "--port", str(port))
    plain = start_worker(tmp_path / "data", "-Q", "ww.embed", "-c", "1", "-l", "DEBUG", **AWAY)
    until(lambda: " ready" in processes.log("worker"), what="the worker is ready")
    until(lambda: "beat: Starting" in processes.log("beat"), what="beat ticks")
    until(lambda: "cannot be reached" in processes.log("worker") + plain.output(), what="workers miss the graph")
    page = f"http://127.0.0.1:{port}"

    def pages() -> str:
        answers = [httpx.get(f"{page}/{name}", timeout=30) for name in ("broker", "tasks", "workers")]
        assert all(answer.is_success for answer in answers), answers
        return "".join(answer.text for answer in answers)

    def flower_answers() -> bool:
        try:
            return httpx.get(f"{page}/healthcheck", timeout=30).is_success
        except httpx.TransportError:
            processes.log("flower")  # it still runs
            return False

    until(flower_answers, what="Flower answers")
    told = [processes.shown(), "\n".join(" ".join(child.cmdline()) for child in plain.children()), pages()]
    asked = (["config"], ["config", "--json"], ["status"], ["-v", "status"], ["doctor"], ["-v", "store", "x"])
    told += [processes.run(*command) for command in asked]
    report = [sys.executable, "-m", "celery", "-A", "ww_workers", "report"]
    environment = clean_environment(PYTHONPATH=str(ROOT), T4DM_REDIS_URL=redis_server.url)
    told.append(subprocess.run(report, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout)
    redis_server.close()
    for log in (lambda: processes.log("worker"), plain.output):
        until(lambda log=log: "Cannot connect" in log(), what="workers miss the broker")
    until(lambda: "beat" in processes.log("beat").lower() and "onnect" in processes.log("beat"), what="beat as well")
    asked_again = (["status"], ["status", "--json"], ["-v", "doctor"], ["-v", "consolidate", "--session", "s"])
    told += [processes.run(*command) for command in asked_again]
    told += [processes.log(name) for name in ("worker", "beat", "flower")]
    told += [plain.output(), processes.shown()]
    assert "redis://:***@127.0.0.1" in processes.run("config"), "addresses are told"
    assert f"127.0.0.1:{redis_server.port}" in plain.output()
    for one in told:
        at = one.find(SECRET)
        assert at < 0, one[max(0, at - 300) : at + 300]
