"""Prometheus' own tool reads what compose/monitoring asks, and does with it what it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.unit.observability.test_monitoring import MONITORING, dashboard
from tests.unit.observability.test_prometheus import busy
from ww_core.observability.prometheus import exposition

OLDEST = (2, 42)
"""From where on it knows ``keep_firing_for``."""
STYLE = 3
"""How promtool ends where it could read everything and would have chosen other names."""


def promtool(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """One call of promtool; the test is skipped where there is none."""
    found = shutil.which("promtool")
    if not found:
        pytest.skip("no promtool on PATH (Debian's package prometheus has one): rules and panels are not run by it")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60)
    version = re.search(r"version (\d+)\.(\d+)", said.stdout + said.stderr)
    if version and tuple(map(int, version.groups())) < OLDEST:
        pytest.skip(f"promtool {version[1]}.{version[2]} is older than 2.42 and does not know keep_firing_for")
    return subprocess.run([found, *arguments], input=given, capture_output=True, text=True, timeout=60)


def test_the_configuration_and_its_rules_are_read() -> None:
    done = promtool("check", "config", str(MONITORING / "prometheus.yml"))
    assert done.returncode == 0, done.stderr
    assert "rules found" in done.stdout


def test_the_rules_do_what_their_tests_say() -> None:
    done = promtool("test", "rules", str(MONITORING / "rules_test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_question_of_a_panel_is_one(tmp_path: Path) -> None:
    asked = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_the_page_that_a_worker_serves_is_read() -> None:
    done = promtool("check", "metrics", given=exposition(busy().snapshot(), queues={"ww.embed": 3}))
    assert done.returncode in (0, STYLE), done.stdout + done.stderr
