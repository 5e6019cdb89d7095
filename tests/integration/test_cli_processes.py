"""The command line as processes: interrupted, as worker and beat of a broker, and without one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import Cli
from tests.processes import ROOT, RedisServer, clean_environment, until


def test_ctrl_c_says_what_was_kept(cli: Cli, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"content": f"Rack {n}: fan replaced"}) + "\n" for n in range(4000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "ww.cli", "--json", "--data-dir", str(cli.data_dir), "ingest", str(lines)],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    graph = cli.data_dir / "graph.sqlite3"

    def under_way() -> bool:
        counts = cli("status")["episodes"] if graph.exists() else {}
        return counts.get("acknowledged") == 4000 and counts["pending"] < 4000

    until(under_way, what="all are stored, and the first of them claimed")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    answer = json.loads(out)
    assert (process.returncode, answer["error"]["type"], answer["accepted"]) == (130, "Interrupted", 4000), err
    assert "Traceback" not in err


@pytest.fixture
def started(redis_server: RedisServer, tmp_path: Path) -> Iterator[Any]:
    """Starts ``ww`` as a process of its own on the real Redis; each is ended with the test."""
    with ExitStack() as ends:

        def start(*argv: str) -> tuple[subprocess.Popen[bytes], Path]:
            log = tmp_path / f"{argv[0]}.log"
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ww.cli", "--data-dir", str(tmp_path / "memory"), *argv],
                    cwd=tmp_path,
                    env=clean_environment(
                        T4DM_REDIS_URL=redis_server.url, PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore"
                    ),
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            ends.callback(_ended, process)
            return process, log

        yield start


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_worker_and_a_beat_serve_the_broker(
    cli: Cli, started: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, worker_log = started(
        "worker", "--pool", "all", "--concurrency", "1", "--without-mingle", "--without-gossip"
    )
    beat, beat_log = started("beat")
    until(lambda: " ready" in worker_log.read_text(), what="the worker is ready")
    monkeypatch.setenv("T4DM_REDIS_URL", redis_server.url)
    assert cli("store", "the lighthouse keeper counts the ships")["state"] == "pending"
    assert cli("flush", "--timeout", "90")["episodes"]["embedded"] == 1
    status = cli("status")
    assert set(status["queues"]) == {"ww.embed", "ww.query", "ww.consolidate", "ww"}
    assert [sorted(one["queues"]) for one in status["workers"]] == [["ww", "ww.consolidate", "ww.embed", "ww.query"]]
    until(lambda: "beat: Starting" in beat_log.read_text(), what="beat ticks")
    assert "REMAP_SIGTERM" not in worker_log.read_text()
    for process in (beat, worker):
        process.terminate()
        process.wait(60)


def test_a_broker_that_is_away_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    answer = cli("status")
    assert (answer["error"]["type"], cli.code) == ("BrokerUnavailable", 3)
    assert "hunter2" not in json.dumps(answer)
