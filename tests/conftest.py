"""What several kinds of tests share: a quick directory, a real Redis, real workers."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.processes import RedisServer, Worker
from ww_core.observability.logs import OURS

pytest_plugins = ["pytester", "tests.support.neo4j_fixture", "tests.support.tiny_model"]


QUICK_BYTES = 1 << 30
"""Free memory from which tests use it as a disk: an opened shard takes 200 MB of it, holes and all."""


LONGEST = (
    "integration/test_killed_at_every_step",
    "integration/test_run_ended",
    "integration/test_neo4j_faults",
    "chaos/test_chaos",
    "performance/test_bench",
    "contract/test_graph_invariant",
    "integration/test_consolidation_quality",
    "integration/test_documented_commands",
    "contract/test_graph_episodes",
    "unit/embedding/test_embedding_int16",
    "integration/test_documentation",
    "contract/graph_runs/test_visibility",
    "integration/test_ingest_killed",
    "unit/embedding/test_embedding_service",
    "integration/test_worker_loss",
    "integration/test_neo4j_holders",
    "integration/test_cli_pipeline",
    "integration/test_presets",
    "integration/test_compose",
    "integration/test_passwords",
)
"""The files that take more than half a minute, the longest first: where several run at a time, none of them is begun
when all others are over."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--scale", default="quick", choices=["quick", "full"], help="full: at the stated sizes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):
        order = {Path(__file__).parent / f"{name}.py": number for number, name in enumerate(LONGEST)}
        items.sort(key=lambda item: order.get(item.path, len(order)))
    if config.getoption("--scale", default="quick") == "full":
        return
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="needs --scale full"))


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """A command line that runs in this process says for good where its records go."""
    loggers = [logging.getLogger(name) for name in OURS]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate, logger.handlers[:] = propagate, handlers


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where the machine has one: for tests that are about logic, not about disks."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < QUICK_BYTES:
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="ww-test-", dir=memory))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and configuration, and an environment without settings."""
    for name in list(os.environ):
        if name.upper().startswith("T4DM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real Redis of this test's own: whatever another test left running cannot take its messages."""
    if shutil.which("redis-server") is None:
        reason = "redis-server is not installed"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
    directory = tmp_path / "redis"
    directory.mkdir()
    server = RedisServer(directory)
    server.ensure()
    yield server
    server.close()


@pytest.fixture
def start_worker(redis_server: RedisServer, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts ``celery -A ww_workers worker`` on the server and a data directory; all are ended with the test."""
    with ExitStack() as ends:

        def start(data_dir: Path, *arguments: str, **environment: str) -> Worker:
            worker = Worker(redis_server.url, data_dir, tmp_path, *arguments, **environment)
            ends.callback(worker.close)
            return worker

        yield start
