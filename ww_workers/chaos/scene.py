"""The scratch deployment of a trial: a directory, a Redis, workers and producers, each a process group of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
import redis
import yaml

from ww_core.errors import ConfigurationError, Unavailable
from ww_core.stores.embedded.vectors.lock import OwnerLock
from ww_workers.system import free_port

LEASE_SECONDS = 5.0
CLAIM_SIZE = 64
START_SECONDS = 60.0


class Process:
    """One program, started again as often as it is killed."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        *,
        port: int | None = None,
    ) -> None:
        """``port``: where on loopback it listens once it is up."""
        self.name = name
        self.port = port
        self._command = command
        self._directory = directory
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def up(self) -> bool:
        """Whether it listens: one that is only just starting has nothing yet that could break."""
        if not self.alive or self.port is None:
            return False
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def signal(self, number: signal.Signals) -> None:
        """To the program and its children."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def children(self) -> list[int]:
        if not self.alive:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]
        return []

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def end(self, within: float) -> None:
        """SIGTERM to the program itself, and by force where that takes longer."""
        if not self.alive or self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()


class Scene:
    """Everything a trial runs, below a directory that did not exist before."""

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        workers: int,
        producers: int,
        model: Mapping[str, object],
        neo4j: Path | None = None,
        qdrant: Path | None = None,
    ) -> None:
        """``neo4j``: the home of a Neo4j server, or a directory of its jars, to keep the graph on; else SQLite.
        ``qdrant``: the program of a Qdrant server, to keep the vectors on; else qdrant-edge."""
        binary = shutil.which("redis-server")
        if binary is None:
            raise ConfigurationError(
                "no redis-server on PATH", hint="install Redis (Debian: apt-get install redis-server)"
            )
        self.directory = directory
        self.data_dir = directory / "data"
        self.ledgers = directory / "ledgers"
        for made in (self.data_dir, self.ledgers, directory / "redis"):
            made.mkdir(mode=0o700)
        port = free_port(0)
        self.redis_url = f"redis://127.0.0.1:{port}/0"
        self.config = directory / "t4dm.yaml"
        settings = {
            **model,
            "data_dir": str(self.data_dir),
            "redis_url": self.redis_url,
            "embedding_lease": LEASE_SECONDS,
            "embedding_claim_size": CLAIM_SIZE,
            "task_max_attempts": 3,
        }
        self.neo4j: Process | None = None
        if neo4j is not None:
            bolt = free_port(0)
            settings |= {"neo4j_uri": f"bolt://127.0.0.1:{bolt}", "neo4j_acquisition_timeout": 5}
            self.neo4j = _neo4j(neo4j, directory / "neo4j", bolt)
        self.qdrant: Process | None = None
        if qdrant is not None:
            http, grpc = free_port(0), free_port(0)
            settings |= {"qdrant_url": f"http://127.0.0.1:{http}", "qdrant_grpc_port": grpc, "qdrant_timeout": 5}
            self.qdrant = _qdrant(qdrant, directory / "qdrant", http, grpc)
        self.config.write_text(yaml.safe_dump(settings), "utf-8")
        self._seed = seed
        self._generation = 0
        self._environment = _environment(T4DM_CONFIG=str(self.config))
        options = ["--bind", "127.0.0.1", "--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        self.redis = Process(
            "redis",
            [binary, "--port", str(port), "--dir", str(directory / "redis"), *options],
            directory,
            self._environment,
        )
        self.workers = [self._worker(number) for number in range(1, workers + 1)]
        self.producers = [self._producer() for _ in range(producers)]

    def _worker(self, number: int) -> Process:
        name = f"worker-{number}"
        command = [sys.executable, "-m", "celery", "-A", "ww_workers", "worker", "-n", f"{name}@chaos", "-l", "INFO"]
        poisoned = {"T4DM_HOOKS": "ww_workers.chaos.poison", "REMAP_SIGTERM": "SIGQUIT"}
        return Process(name, [*command, "-P", "prefork", "-c", "1"], self.directory, {**self._environment, **poisoned})

    def _producer(self) -> Process:
        self._generation += 1
        name = f"p{self._generation}"
        command = [sys.executable, "-m", "ww_workers.chaos.producer", str(self.config), str(self.ledger(name)), name]
        return Process(name, [*command, str(self._seed)], self.directory, self._environment)

    def ledger(self, name: str) -> Path:
        return self.ledgers / f"{name}.ledger"

    # -- as a whole

    @property
    def servers(self) -> list[Process]:
        return [server for server in (self.redis, self.neo4j, self.qdrant) if server is not None]

    def start(self, graph_answers: Callable[[], object]) -> None:
        """Raises Unavailable where something does not come up."""
        for server in self.servers:
            server.start()
        self.until(self.redis_answers, within=START_SECONDS, what="redis-server")
        self.until(graph_answers, within=3 * START_SECONDS, what="the graph store")
        for process in (*self.workers, *self.producers):
            process.start()

    def replace_producer(self, producer: Process) -> None:
        """Start another in the place of one that was killed: names are never used twice."""
        fresh = self._producer()
        self.producers[self.producers.index(producer)] = fresh
        fresh.start()

    def mend(self) -> None:
        """Let everything that was stopped or killed run again, producers apart."""
        for process in (*self.servers, *self.workers):
            process.signal(signal.SIGCONT)
            if not process.alive:
                process.start()
        self.until(self.redis_answers, within=START_SECONDS, what="redis-server")

    def end_producers(self) -> None:
        for producer in self.producers:
            producer.signal(signal.SIGCONT)
            producer.end(30)

    def end(self) -> None:
        """End all that is left, whatever state it is in."""
        for process in (*self.producers, *self.workers, *self.servers):
            process.kill()

    # -- looking

    def owner(self) -> int | None:
        """The process that owns the vectors, where it is one of the scene's."""
        mine = {pid for process in (*self.workers, *self.producers) for pid in (process.pid, *process.children())}
        holders = [OwnerLock(lock.parent).holder() for lock in self.data_dir.glob("vectors/*/owner.lock")]
        return next((holder.pid for holder in holders if holder is not None and holder.pid in mine), None)

    def redis_answers(self) -> bool:
        with self.client() as client, contextlib.suppress(redis.RedisError):
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, socket_timeout=2, socket_connect_timeout=2)

    def until(self, condition: Callable[[], object], *, within: float, what: str) -> None:
        """Return when the condition holds. Raises Unavailable."""
        end = time.monotonic() + within
        while not condition():
            if time.monotonic() > end:
                raise Unavailable(f"{what} was not ready within {within:g} s", hint=f"see the logs in {self.directory}")
            threading.Event().wait(0.1)


def _neo4j(place: Path, home: Path, port: int) -> Process:
    """A Community server on loopback, without a password: nothing else uses it, and it goes with the directory."""
    jars = place / "lib" if (place / "lib").is_dir() else place
    java = shutil.which("java")
    if java is None or not any(jars.glob("neo4j-*.jar")):
        what = "no java on PATH" if java is None else f"no Neo4j jars in {str(place)!r}"
        raise ConfigurationError(what, hint="--neo4j takes the home of a Neo4j 5 server (Java 17 or newer runs it)")
    (home / "conf").mkdir(parents=True, mode=0o700)
    settings = {
        "server.default_listen_address": "127.0.0.1",
        "server.bolt.listen_address": f"127.0.0.1:{port}",
        "server.bolt.advertised_address": f"127.0.0.1:{port}",
        "server.http.enabled": "false",
        "server.https.enabled": "false",
        "server.memory.pagecache.size": "128m",
        "dbms.security.auth_enabled": "false",
        "dbms.usage_report.enabled": "false",
    }
    (home / "conf" / "neo4j.conf").write_text("".join(f"{key}={value}\n" for key, value in settings.items()), "utf-8")
    options = ["-Xms512m", "-Xmx512m", "-XX:+UseParallelGC", "-cp", f"{jars.absolute()}/*"]
    entry = ["org.neo4j.server.CommunityEntryPoint", f"--home-dir={home}", f"--config-dir={home}/conf"]
    return Process("neo4j", [java, *options, *entry], home.parent, _environment(), port=port)


def _qdrant(program: Path, home: Path, http: int, grpc: int) -> Process:
    """A server on loopback, without a key: nothing else uses it, and it goes with the directory."""
    found = shutil.which(program)
    if found is None:
        raise ConfigurationError(
            f"{str(program)!r} is no program", hint="--qdrant takes the program of a Qdrant server, 1.16 or newer"
        )
    home.mkdir(mode=0o700)
    settings = {
        "QDRANT__STORAGE__STORAGE_PATH": str(home / "storage"),
        "QDRANT__STORAGE__SNAPSHOTS_PATH": str(home / "snapshots"),
        "QDRANT__SERVICE__HOST": "127.0.0.1",
        "QDRANT__SERVICE__HTTP_PORT": str(http),
        "QDRANT__SERVICE__GRPC_PORT": str(grpc),
        "QDRANT__TELEMETRY_DISABLED": "true",
    }
    return Process("qdrant", [str(Path(found).absolute())], home.parent, _environment(**settings), port=http)


def _environment(**more: str) -> dict[str, str]:
    """This environment without any settings of the user's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("T4DM_", "WW_"))}
    return {"OMP_NUM_THREADS": "1", **kept, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore", **more}
