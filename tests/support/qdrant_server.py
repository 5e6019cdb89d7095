"""A real Qdrant server for tests, of a binary that is on this machine: nothing is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.processes import ServerProcess, free_ports, until

BINARY_VARIABLE = "QDRANT_BINARY"


def binary() -> str:
    """The program; skips the test where there is none."""
    found = os.environ.get(BINARY_VARIABLE) or shutil.which("qdrant")
    if not found:
        pytest.skip(f"no qdrant on PATH, and {BINARY_VARIABLE} is not set: no Qdrant server to start")
    return found


class QdrantServer(ServerProcess):
    """One server process. ``home`` holds its data and outlives it: ``start`` after ``kill`` finds everything again."""

    def __init__(
        self, home: Path, *, api_key: str | None = None, cluster: bool = False, joins: QdrantServer | None = None
    ) -> None:
        """``joins``: a server of the cluster that this one is to be a node of."""
        self._binary = binary()
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.port, self.grpc_port, self.peers = free_ports(3)
        cluster = cluster or joins is not None
        self._key = api_key
        self._command = [self._binary, "--disable-telemetry"]
        if cluster:
            self._command += ["--uri", f"http://127.0.0.1:{self.peers}"]
        if joins is not None:
            self._command += ["--bootstrap", f"http://127.0.0.1:{joins.peers}"]
        self._environment = {
            "QDRANT__STORAGE__STORAGE_PATH": str(home / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(home / "snapshots"),
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(self.port),
            "QDRANT__SERVICE__GRPC_PORT": str(self.grpc_port),
            "QDRANT__CLUSTER__ENABLED": str(cluster).lower(),
            "QDRANT__CLUSTER__P2P__PORT": str(self.peers),
        }
        if api_key is not None:
            self._environment["QDRANT__SERVICE__API_KEY"] = api_key

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> dict[str, object]:
        return {"qdrant_url": self.url, "qdrant_grpc_port": self.grpc_port, "qdrant_api_key": self._key}

    def start(self) -> None:
        """Return when the server is ready."""
        with (self.home / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.home,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(self._ready, what="qdrant is ready")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "console.log").read_text("utf-8", errors="replace")[-2000:]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def get(self, path: str) -> dict[str, object]:
        """What its HTTP interface answers."""
        headers = {} if self._key is None else {"api-key": self._key}
        answer = httpx.get(self.url + path, headers=headers, timeout=10).raise_for_status().json()["result"]
        assert isinstance(answer, dict)
        return answer
