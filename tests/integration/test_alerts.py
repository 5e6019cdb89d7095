"""What one process suffers, ``ww alerts`` shows in another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.processes import ROOT, clean_environment, until
from tests.unit.observability.test_alerts import Listener

APPLICATION = """
import sys, threading
from ww import hooks
from ww.memory.episodic import EpisodicMemory

waiting = 0.6

@hooks.before_recall
def wait(request):
    threading.Event().wait(waiting)
    return request

memory = EpisodicMemory(session_id="s")
memory.sync.store("The deploy of api-7 failed: out of disk")
memory.sync.flush(timeout=60)
for i in range(4):
    memory.sync.recall(f"why did deploy {i} fail")
print("slow", flush=True)
sys.stdin.readline()
waiting = 0
for _ in range(150):
    memory.sync.recall("why did the deploy fail")
print("quick", flush=True)
sys.stdin.readline()
memory.close()
"""


def test_slow_recalls_of_an_application_turn_alerts_critical_elsewhere_and_ok_again(tmp_path: Path) -> None:
    listener = Listener()
    environment = clean_environment(
        T4DM_DATA_DIR=str(tmp_path / "memory"),
        T4DM_ALERT_MIN_SAMPLES="4",
        T4DM_ALERT_INTERVAL="1",
        T4DM_ALERT_WEBHOOK=listener.url,
        PYTHONPATH=str(ROOT),
    )
    codes: list[int] = []

    def alerts(*options: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "ww.cli", "alerts", "--json", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        codes.append(done.returncode)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def levels() -> dict[str, str]:
        return {alert["name"]: alert["level"] for alert in alerts()["alerts"]}

    assert set(levels().values()) == {"unknown"}
    assert codes == [0]
    application = subprocess.Popen(
        [sys.executable, "-c", APPLICATION],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert application.stdin is not None
    assert application.stdout is not None
    try:
        assert application.stdout.readline() == "slow\n"
        until(lambda: levels()["recall_p95"] == "critical", what="recall_p95 is critical")
        assert codes[-1] == 1
        found = levels()
        assert found["cache_hit_rate"] == "critical", "every query was a new one"
        assert (found["pool_utilization"], found["error_rate"]) == ("unknown", "ok")
        until(lambda: any(c["level"] == "critical" for c in alerts("--history")["history"]), what="a check kept it")
        application.stdin.write("\n")
        application.stdin.flush()
        assert application.stdout.readline() == "quick\n"
        until(lambda: (now := levels())["recall_p95"] == now["cache_hit_rate"] == "ok", what="both are ok")
        assert codes[-1] == 0
        told = lambda: [(c["name"], c["level"]) for body in listener.bodies for c in body["alerts"]]  # noqa: E731
        until(lambda: ("recall_p95", "ok") in told(), what="the webhook heard the end")
        assert told().index(("recall_p95", "critical")) < told().index(("recall_p95", "ok"))
    finally:
        application.stdin.close()
        application.wait(60)
        application.stdout.close()
        listener.close()
    assert application.returncode == 0
