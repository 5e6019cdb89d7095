"""A task whose process dies is one failed attempt of the deployment, as any other failure is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, RedisServer, Worker, clean_environment, until
from ww_core.config import Settings
from ww_core.observability.metrics import ATTEMPTS, FAILURES
from ww_core.stores.ports import Queue
from ww_workers.producer import producer

STUCK = """
import os, threading
from pathlib import Path
from billiard.exceptions import SoftTimeLimitExceeded
from ww_workers.jobs import Jobs

def check_alerts(self):
    Path("begun").write_text(str(os.getpid()))
    while True:
        try:
            threading.Event().wait()
        except SoftTimeLimitExceeded:
            pass

Jobs.check_alerts = check_alerts
"""


def _figures(settings: Settings) -> dict[str, Any]:
    """What ``ww metrics`` says."""
    assert settings.redis_url is not None
    given = {"T4DM_DATA_DIR": str(settings.data_dir), "T4DM_REDIS_URL": settings.redis_url.get_secret_value()}
    done = subprocess.run(
        [sys.executable, "-m", "ww.cli", "metrics", "--json"],
        env=clean_environment(PYTHONPATH=str(ROOT), **given),
        capture_output=True,
        text=True,
        timeout=90,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "its process ended first: signal 9 (SIGKILL); was there too little memory?"),
        ({"soft_time_limit": 1, "time_limit": 2}, "its process was killed at the hard time limit of 2 s"),
    ],
    ids=["kill -9", "time limit"],
)
def test_it_is_counted_once_and_shown(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path, limits: dict[str, int], message: str
) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    settings = Settings(data_dir=tmp_path / "memory", redis_url=redis_server.url)
    given = {"T4DM_HOOKS": "stuck", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    worker = start_worker(settings.data_dir, "-Q", "ww", "-c", "1", "worker.lost_wait=0.5", **given)
    begun = worker.directory / "begun"
    producer(settings).send_task("ww.alerts", queue=Queue.MAINTAIN.value, retry=False, **limits)
    until(lambda: begun.exists() and begun.read_text(), what="the task has begun")
    if not limits:
        os.kill(int(begun.read_text()), signal.SIGKILL)
    until(lambda: _figures(settings)["errors"], every=0.5, what="somebody knows of the failure")
    found = _figures(settings)
    assert [(one["action"], one["error"], one["message"]) for one in found["last_failures"]] == [
        ("alerts", "WorkerLost", message)
    ]
    assert (found["window"][FAILURES], found["counters"][FAILURES]) == (1, 1)
    # of its attempts one is the lost one; workers sweep by themselves as well
    assert found["error_rate"] == pytest.approx(1 / found["window"][ATTEMPTS])
