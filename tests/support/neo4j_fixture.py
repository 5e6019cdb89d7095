"""The Neo4j server of a test run: started when a test first asks for it, and shared by all processes of the run."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import neo4j_server as server
from tests.support.certificates import skip_without_openssl

RUN_VARIABLE = "WW_TEST_RUN"
"""The run's own directory: workers of pytest-xdist inherit it from the process that started them."""

PREFIX = "ww-test-run-"
OWNER = "owner.json"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            if (left / OWNER).exists() and _process(left / OWNER) is None:  # that run was killed
                _end(left)
        directory = tempfile.mkdtemp(prefix=PREFIX)
        half = Path(directory) / "owner"
        half.write_text(json.dumps(_identity(os.getpid())))
        half.rename(Path(directory) / OWNER)  # whole or absent for runs that look just now
        os.environ[RUN_VARIABLE] = directory


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and (directory := os.environ.pop(RUN_VARIABLE, None)) is not None:
        _end(Path(directory))


def _end(directory: Path) -> None:
    """End the server of a run, and remove its directory."""
    with suppress(psutil.NoSuchProcess):
        if (process := _process(directory / "neo4j.json")) is not None:
            process.kill()
            process.wait(10)
    shutil.rmtree(directory, ignore_errors=True)


def _identity(pid: int) -> dict[str, float]:
    """A pid is given to others later; with the time the process was made it is not."""
    return {"pid": pid, "created": psutil.Process(pid).create_time()}


def _process(file: Path) -> psutil.Process | None:
    """The process that the file tells of, None where it is gone."""
    try:
        known = json.loads(file.read_text())
        process = psutil.Process(known["pid"])
        same = abs(process.create_time() - known["created"]) < 1
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    return process if same else None


@pytest.fixture(scope="session")
def neo4j_server(request: pytest.FixtureRequest) -> tuple[str, str]:
    """URI and password: of ``NEO4J_URI`` and ``NEO4J_PASSWORD``, else of the run's own server.

    Tests share it: each works in a namespace of its own, and none changes what all of them see.
    """
    if uri := os.environ.get("NEO4J_URI"):
        return uri, os.environ.get("NEO4J_PASSWORD", "")
    found = _of_this_run(request.config)
    return found["uri"], found["password"]


@pytest.fixture(scope="session")
def neo4j_certificate(request: pytest.FixtureRequest) -> Path:
    """The certificate of the run's own server, which takes encrypted connections too."""
    if os.environ.get("NEO4J_URI"):
        pytest.skip("NEO4J_URI names a server whose certificate nobody knows")
    skip_without_openssl()
    return Path(_of_this_run(request.config)["certificate"])


def skip_without_neo4j() -> None:
    """Where no server can be started: skip with the reason, or fail in CI, where one has to be."""
    if (reason := server.missing()) is not None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)


def _of_this_run(config: pytest.Config) -> dict[str, Any]:
    skip_without_neo4j()
    beside_others = hasattr(config, "workerinput")  # what runs alone may be judged by the clock
    directory = Path(os.environ[RUN_VARIABLE])
    found = directory / "neo4j.json"
    with (directory / "neo4j.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            started = server.Neo4jServer(directory / "neo4j", brief=beside_others)
            started.start()
            started.outlive()
            facts = {
                "uri": started.uri,
                "password": started.password,
                **_identity(started.pid),
                "certificate": str(started.certificate),
            }
            found.write_text(json.dumps(facts))
        known: dict[str, Any] = json.loads(found.read_text())
        return known
