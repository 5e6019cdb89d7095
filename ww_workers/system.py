"""The distributed system on one machine: which programs it is made of, and whether they answer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from ww_core.config import Settings
from ww_core.errors import BrokerUnavailable, Busy, ConfigurationError
from ww_workers.inspection import workers
from ww_workers.supervisor import Program

REDIS_PORT = 6379
LOCK_FILE = "system.lock"
POOLS = ("cpu", "query", "consolidate", "maintain")
READY_SECONDS = 180.0
"""Until every pool has loaded what it needs; a model on a busy machine takes its time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Programs in the order they start, and the broker that they use."""

    programs: tuple[Program, ...]
    redis_url: str
    own_redis: bool
    flower_port: int | None

    @property
    def broker(self) -> tuple[str, ...]:
        """Names of the programs that the others wait for."""
        return tuple(program.name for program in self.programs if program.stops_last)

    @property
    def pools(self) -> tuple[str, ...]:
        return tuple(program.name for program in self.programs if program.name in (*POOLS, "gpu"))


def plan(
    settings: Settings,
    *,
    config: Path | None = None,
    pools: Sequence[str] = POOLS,
    beat: bool = True,
    flower_port: int | None = 5555,
    redis_port: int | None = None,
) -> Plan:
    """What has to run for these settings. Raises ConfigurationError where no redis-server can be started."""
    programs: list[Program] = []
    own = settings.redis_url is None
    if settings.redis_url is None:
        port = redis_port or free_port(REDIS_PORT)
        url = f"redis://127.0.0.1:{port}/0"
        programs.append(_redis(settings.data_dir, port))
    else:
        url = settings.redis_url.get_secret_value()
    environment = {"T4DM_REDIS_URL": url, "T4DM_DATA_DIR": str(settings.data_dir)}
    if config is not None:
        environment["T4DM_CONFIG"] = str(config.absolute())
    ww = [sys.executable, "-m", "ww.cli"]
    programs += [Program(pool, [*ww, "worker", "--pool", pool], environment) for pool in pools]
    if beat:
        programs.append(Program("beat", [*ww, "beat"], environment))
    if flower_port is not None:
        flower_port = free_port(flower_port)
        programs.append(Program("flower", [*ww, "flower", "--port", str(flower_port)], environment))
    return Plan(tuple(programs), url, own, flower_port)


@contextlib.contextmanager
def alone(data_dir: Path) -> Iterator[int]:
    """Be the only system of the data directory: two brokers would write one log. Raises Busy, which names the other.

    Gives the descriptor that holds the lock: a process that inherits it holds the lock as well, while it lives.
    """
    path = data_dir / LOCK_FILE
    with path.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Busy(
                f"the system of {data_dir} runs already, as process {lock.read().strip() or 'unknown'}",
                hint=f"end that one (or, where it is gone, what has {LOCK_FILE} open), or give --data-dir",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


def await_broker(url: str, *, within: float = 20.0, should_stop: Callable[[], bool] = lambda: False) -> bool:
    """Return when the broker answers; False where it was told to stop before. Raises BrokerUnavailable."""
    end = time.monotonic() + within
    client: redis.Redis = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
    with contextlib.closing(client):
        while not should_stop():
            try:
                client.ping()
                return True
            except redis.RedisError as error:
                if time.monotonic() > end:
                    raise BrokerUnavailable(
                        f"the broker did not answer within {within:g} s: {type(error).__name__}",
                        hint="see its lines in the log above",
                    ) from None
            threading.Event().wait(0.1)
    return False


def await_workers(settings: Settings, pools: Sequence[str], *, within: float = READY_SECONDS) -> bool:
    """Whether a worker of each pool answered in time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        names = {worker.name.split("-", 1)[0] for worker in workers(settings)}
        if names >= set(pools):
            return True
        threading.Event().wait(0.5)
    return False


def free_port(wanted: int) -> int:
    """``wanted`` if nobody listens there on loopback, else one that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError("no port is free on 127.0.0.1", hint="end some of what listens there")


def _redis(data_dir: Path, port: int) -> Program:
    binary = shutil.which("redis-server")
    if binary is None:
        raise ConfigurationError(
            "redis_url is not set and no redis-server was found on PATH",
            hint="install Redis (Debian: apt-get install redis-server), or set T4DM_REDIS_URL",
        )
    folder = data_dir / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chmod(folder, 0o700)
    # noeviction: a broker must never drop keys; append-only: messages outlive it (though nothing depends on them)
    options = ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction", "--dir", str(folder)]
    return Program("redis", [binary, "--port", str(port), "--bind", "127.0.0.1", *options], stops_last=True)
