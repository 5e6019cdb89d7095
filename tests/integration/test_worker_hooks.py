"""A worker whose hooks cannot be imported stores nothing without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from tests.processes import ROOT, RedisServer, Worker, clean_environment
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.stores.ports import Queue
from ww_workers.doctor import examine

QUEUE = Queue.MAINTAIN.value
REDACT = """
from dataclasses import replace
from ww import hooks

@hooks.before_store
def redact(episode):
    return replace(episode, content=episode.content.replace("4111", "****"))
"""


def test_its_tasks_fail_until_they_can_be_imported_and_every_log_line_is_an_object(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    given = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "T4DM_HOOKS": "redaction_of_cards",
        "T4DM_LOG_FORMAT": "json",
    }
    worker = start_worker(tmp_path / "data", "-Q", QUEUE, "-c", "1", "-l", "INFO", **given)
    sender = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    message = {"content": "card 4111", "session_id": "till"}
    with pytest.raises(Exception, match="'redaction_of_cards' cannot be imported"):
        sender.send_task("ww.store", kwargs=message, queue=QUEUE).get(timeout=90)
    (tmp_path / "redaction_of_cards.py").write_text(REDACT)
    sender.send_task("ww.store", kwargs=message, queue=QUEUE).get(timeout=90)
    worker.terminate()
    with EpisodicMemory(session_id="till", data_dir=tmp_path / "data") as memory:
        assert [episode.content for episode in memory.sync.list()] == ["card ****"]
    lines = worker.output().splitlines()
    logged = [json.loads(line) for line in lines if line.startswith("{")]
    assert {"celery.worker.strategy", "celery.app.trace"} <= {line["logger"] for line in logged}
    assert not [line for line in lines if "ForkPoolWorker" in line or "MainProcess" in line], "Celery's own form"


def test_ww_worker_refuses_and_doctor_names_them(tmp_path: Path) -> None:
    given = {"PYTHONPATH": str(ROOT), "T4DM_HOOKS": "absent_hooks", "T4DM_REDIS_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(
        [sys.executable, "-m", "ww.cli", "--data-dir", str(tmp_path / "data"), "worker"],
        env=clean_environment(**given),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'absent_hooks' cannot be imported" in done.stderr
    deployment = Deployment(Settings(data_dir=tmp_path / "data", hooks=["absent_hooks"]))
    try:
        (hooks,) = (finding for finding in examine(deployment, look_seconds=0.05) if finding.name == "hooks")
    finally:
        deployment.close()
    assert not hooks.ok
    assert hooks.message.startswith("module 'absent_hooks' cannot be imported")
    assert "the setting hooks" in hooks.hint


def test_hooks_are_found_in_the_current_directory(tmp_path: Path) -> None:
    (tmp_path / "redaction_here.py").write_text(REDACT)
    done = subprocess.run(
        [sys.executable, "-c", "from ww.cli import main; main()", "--data-dir", "data", "store", "card 4111"],
        env=clean_environment(PYTHONPATH=str(ROOT), PYTHONSAFEPATH="1", T4DM_HOOKS="redaction_here"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    with EpisodicMemory(data_dir=tmp_path / "data") as memory:
        assert [episode.content for episode in memory.sync.list()] == ["card ****"]
