"""The image in a container, where there is an engine to run one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys

import pytest

from tests.processes import ROOT

WITHIN = 1800
"""Seconds: the image holds torch, and is built on the way."""


def missing() -> str:
    """Why no container can be run here, empty where one can."""
    if shutil.which("docker") is None:
        return "no docker command on this machine"
    try:
        asked = subprocess.run(["docker", "info"], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return "the Docker engine does not answer"
    if asked.returncode:
        return f"no Docker engine: {(asked.stderr.strip() or 'docker info fails').splitlines()[-1]}"
    if importlib.util.find_spec("pytest_celery") is None:
        return "pytest-celery is not installed (the extra pytest-celery)"
    return ""


@pytest.mark.timeout(WITHIN + 60)
def test_the_image_works_in_a_container() -> None:
    if reason := missing():
        pytest.skip(reason)
    options = ["-o", "addopts=", "-o", "filterwarnings=", "-p", "no:world_weaver", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "tests/containers/smoke.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
