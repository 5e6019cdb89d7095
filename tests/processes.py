"""Servers and workers as processes of a test: started, waited for with a bound, and killed for real."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import psutil
import redis

ROOT = Path(__file__).resolve().parents[1]
BOUND = 90.0
"""Seconds that anything may take before a test fails: machines that run tests are often busy with others."""


def until(condition: Callable[[], object], *, within: float = BOUND, every: float = 0.02, what: str = "") -> None:
    """Return as soon as the condition holds; fail after ``within`` seconds."""
    end = time.monotonic() + within
    wait = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s: {what or condition}"
        wait.wait(every)


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without any settings of ours, and with these."""
    ours = ("T4DM_", "WW_", "PYTEST")
    kept = {key: value for key, value in os.environ.items() if key == "WW_TEST_RUN" or not key.startswith(ours)}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def run_python(script: str, *arguments: str, cwd: Path, within: float = BOUND, **environment: str) -> str:
    """The standard output of a Python process; fails where it fails."""
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=cwd,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=within,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked child; its wait status, 0 where it returned."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:  # whatever it is, the child must not return into the test
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(99)
    return os.waitpid(pid, 0)[1]


class ServerProcess:
    """A server that a test starts, freezes and kills; its files outlive it."""

    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def freeze(self) -> None:
        """The process keeps its sockets and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """kill -9."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody listens on just now, all different."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class RedisServer(ServerProcess):
    """A redis-server on a free port, without persistence; with a key and a certificate, encrypted only."""

    def __init__(self, directory: Path, *, certificate: tuple[Path, Path] | None = None) -> None:
        self._directory = directory
        self._certificate = certificate
        (self.port,) = free_ports(1)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        if certificate is not None:
            self.url = f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={certificate[1]}"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def ensure(self) -> None:
        """Start it unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        if self._certificate is None:
            options += ["--port", str(self.port)]
        else:
            key, certificate = map(str, self._certificate)
            options += ["--port", "0", "--tls-port", str(self.port), "--tls-key-file", key, "--tls-cert-file"]
            options += [certificate, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
        self._process = subprocess.Popen(
            ["redis-server", *options], cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, what="redis-server answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"redis-server ended at once: was port {self.port} taken meanwhile?"
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def close(self) -> None:
        self.kill()


class Worker:
    """A Celery worker with its children, in a process group of its own."""

    def __init__(self, redis_url: str, data_dir: Path, logs: Path, *arguments: str, **environment: str) -> None:
        self.name = f"test-{uuid4().hex[:8]}@localhost"
        self.log = logs / f"{self.name}.log"
        self._redis_url = redis_url
        given = {
            "T4DM_REDIS_URL": redis_url,
            "T4DM_DATA_DIR": str(data_dir),
            "PYTHONPATH": str(ROOT),
            "REMAP_SIGTERM": "SIGQUIT",
            "PYTHONWARNINGS": "ignore",
            "PYTHONFAULTHANDLER": "1",
        }
        command = [sys.executable, "-m", "celery", "-A", "ww_workers", "worker", "-n", self.name, "-l", "INFO"]
        self.directory = directory = logs / f"{self.name}.cwd"
        directory.mkdir()
        # what a user's own Celery application may well have lying about
        (directory / "celeryconfig.py").write_text("broker_url = 'redis://192.0.2.1/0'\ntask_default_queue = 'other'\n")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--without-mingle", "--without-gossip", *arguments],
                cwd=directory,
                env=clean_environment(**{**given, **environment}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(self._ready, what=f"worker ready:\n{self.output()}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.output()[-4000:]
        return f"{self.name} ready" in self.output()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """kill -9, parent and children at once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def terminate(self) -> float:
        """SIGTERM, as an init system sends it; the seconds until the end."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(BOUND)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGABRT)  # every process writes down where its threads are
            self.process.wait(BOUND)
            raise AssertionError(f"{self.name} did not end:\n{self.output()[-20000:]}") from None
        return time.monotonic() - started

    def close(self) -> None:
        self.kill()
