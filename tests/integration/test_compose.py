"""compose/docker-compose.yml: its shape, and every command of it as written, without a container engine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from jsonschema import Draft202012Validator

from tests.integration import compose_file
from tests.processes import BOUND, ROOT, RedisServer, clean_environment, free_ports, until
from ww.cli.background import POOLS
from ww_core.config import Settings
from ww_core.stores.ports import Queue
from ww_workers.inspection import workers
from ww_workers.settings import SOFT_SHUTDOWN_SECONDS

SECRETS = {
    "REDIS_PASSWORD": "secret-of-redis",
    "QDRANT_API_KEY": "secret-of-qdrant",
    "NEO4J_PASSWORD": "secret-of-neo4j",
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return compose_file.load(SECRETS)


def services(compose: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose["services"]
    return found


def of_our_image(compose: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: one for name, one in services(compose).items() if one.get("image", "").startswith("world-weaver:")}


# -- the file


def test_the_file_has_the_shape_of_the_specification(compose: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(compose_file.SCHEMA)
    validator = Draft202012Validator(compose_file.SCHEMA)
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(compose)] == []
    broken = {**compose, "services": {"redis": {"image": "redis", "helthcheck": {}}}}
    assert list(validator.iter_errors(broken)), "the check can fail"


def test_what_is_referred_to_exists(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        assert set(service.get("depends_on", {})) <= set(services(compose)), name
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services(compose)[other], other
        assert set(service.get("networks", ())) <= set(compose["networks"]), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (compose_file.PATH.parent / source).exists(), source
            else:
                assert source in compose["volumes"], source
        if "build" in service:
            assert (compose_file.PATH.parent / service["build"]["context"] / service["build"]["dockerfile"]).exists()


def test_secrets_come_from_the_environment_alone() -> None:
    assert compose_file.required() == set(SECRETS)
    for missing in SECRETS:
        with pytest.raises(KeyError, match=missing):
            compose_file.load({name: value for name, value in SECRETS.items() if name != missing})
    example = compose_file.variables_of(compose_file.PATH.parent / ".env.example")
    assert set(example) >= set(SECRETS)
    assert [example[name] for name in SECRETS] == ["", "", ""]
    used = {match["name"] for match in compose_file.VARIABLE.finditer(compose_file.PATH.read_text()) if match["name"]}
    assert set(example) <= used, "the example names nothing that is not used"


def test_no_password_is_in_a_command_or_a_check(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        shown = f"{service.get('command')} {service.get('healthcheck')}"
        assert not any(secret in shown for secret in SECRETS.values()), name


def test_every_service_is_checked_and_starts_again(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL"), name


def test_nothing_is_published_beyond_loopback(compose: dict[str, Any]) -> None:
    for name, service in services(compose).items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_work_in_flight_is_finished_before_a_container_is_killed(compose: dict[str, Any]) -> None:
    for name, service in of_our_image(compose).items():
        assert compose_file.seconds(service["stop_grace_period"]) > SOFT_SHUTDOWN_SECONDS + 10, name
        assert service["environment"]["REMAP_SIGTERM"] == "SIGQUIT", name


def test_every_setting_of_our_services_is_one(compose: dict[str, Any]) -> None:
    for name, service in of_our_image(compose).items():
        given = {key[5:].lower() for key in service["environment"] if key.startswith("T4DM_")}
        assert given <= set(Settings.model_fields), name


def test_every_queue_has_a_consumer_without_any_profile(compose: dict[str, Any]) -> None:
    pools = {
        service["command"][service["command"].index("--pool") + 1]
        for service in of_our_image(compose).values()
        if "profiles" not in service and "--pool" in service["command"]
    }
    assert {queue for pool in pools for queue in POOLS[pool]} == set(Queue)
    assert services(compose)["worker-gpu"]["profiles"] == ["gpu"]


# -- its commands


def run_as_written(words: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a directory of its own, with ``ww`` and ``celery`` of this environment on the path."""
    with log.open("wb") as out:
        return subprocess.Popen(
            words, cwd=log.parent, env=dict(environment), stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def environment_of(service: Mapping[str, Any], **instead: str | None) -> dict[str, str]:
    """The service's own, with what names other containers replaced; None takes away."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {key: str(value) for key, value in service["environment"].items()}
    mapped = {
        **own,
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "HOSTNAME": socket.gethostname(),
        "PYTHONWARNINGS": "ignore",
    }
    merged: dict[str, str | None] = {**mapped, **instead}
    return clean_environment(**{key: value for key, value in merged.items() if value is not None})


def checked(service: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether the service's own health check passes."""
    kind, *words = service["healthcheck"]["test"]
    command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words
    return subprocess.run(command, env=dict(environment), capture_output=True, timeout=BOUND).returncode == 0


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def ended(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(BOUND)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)  # also what a shell has started and left behind
        process.wait()


def test_redis_runs_as_written_with_its_password_out_of_sight(
    compose: dict[str, Any], redis_server: RedisServer, tmp_path: Path, ends: ExitStack
) -> None:
    service = services(compose)["redis"]
    (port,) = free_ports(1)
    environment = environment_of(service, REDIS_DIR=str(tmp_path), REDIS_PORT=str(port))
    process = run_as_written(service["command"], tmp_path / "redis.log", environment)
    ends.callback(ended, process)
    client = ends.enter_context(closing(redis.Redis(port=port, password=SECRETS["REDIS_PASSWORD"])))

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False

    until(answers, what=f"redis: {(tmp_path / 'redis.log').read_text()}")
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert client.config_get("appendonly") == {"appendonly": "yes"}
    with closing(redis.Redis(port=port)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    assert SECRETS["REDIS_PASSWORD"] not in Path(f"/proc/{process.pid}/cmdline").read_text()
    words = [*service["healthcheck"]["test"][1:]]
    assert subprocess.run([words[0], "-p", str(port), *words[1:]], env=environment, timeout=BOUND).returncode == 0


def test_our_services_run_as_written_and_their_checks_find_out(
    compose: dict[str, Any], redis_server: RedisServer, tmp_path: Path, ends: ExitStack
) -> None:
    """All but the GPU's, on this machine's Redis and embedded stores."""
    started: dict[str, tuple[subprocess.Popen[bytes], dict[str, str]]] = {}
    (port,) = free_ports(1)
    for name, service in of_our_image(compose).items():
        if "profiles" in service:
            continue
        environment = environment_of(
            service,
            T4DM_REDIS_URL=redis_server.url,
            T4DM_QDRANT_URL=None,
            T4DM_QDRANT_API_KEY=None,
            T4DM_NEO4J_URI=None,
            T4DM_NEO4J_PASSWORD=None,
            T4DM_METRICS_PORT=None,
            T4DM_METRICS_ADDRESS=None,
            T4DM_FLOWER_BASIC_AUTH=None,
            T4DM_DATA_DIR=str(tmp_path / "data"),
        )
        words = list(service["command"])
        if name == "flower":
            words += ["--port", str(port)]
        process = run_as_written(words, tmp_path / f"{name}.log", environment)
        ends.callback(ended, process)
        started[name] = (process, environment)
    for process, _ in started.values():
        ends.callback(process.terminate)  # all at once, before the first is waited for

    def log(name: str) -> str:
        return (tmp_path / f"{name}.log").read_text(errors="replace")

    names = [name for name in started if name.startswith("worker-")]
    assert len(names) == 4
    host = socket.gethostname()
    for name in names:
        pool = name.removeprefix("worker-")
        until(lambda name=name, pool=pool: f"{pool}@{host} ready" in log(name), what=f"{name}: {log(name)[-2000:]}")
    until(lambda: "beat: Starting" in log("beat"), what="beat")
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path / "data")
    until(lambda: len(workers(settings)) == 4, what="all four answer")
    assert {queue for worker in workers(settings) for queue in worker.queues} == {queue.value for queue in Queue}

    flower = services(compose)["flower"]
    moved = {
        **flower,
        "healthcheck": {"test": [w.replace(":5555/", f":{port}/") for w in flower["healthcheck"]["test"]]},
    }
    until(lambda: checked(moved, started["flower"][1]), what=f"flower: {log('flower')[-2000:]}")
    assert checked(services(compose)["beat"], started["beat"][1])
    cpu, environment = started["worker-cpu"]
    assert checked(services(compose)["worker-cpu"], environment)
    begun = time.monotonic()
    ended(cpu)
    assert time.monotonic() - begun < compose_file.seconds(services(compose)["worker-cpu"]["stop_grace_period"])
    assert not checked(services(compose)["worker-cpu"], environment), "the others answer, and it asks for itself alone"
