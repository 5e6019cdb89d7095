"""What chaos does to the servers of its scene."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.processes import clean_environment, free_ports, until
from ww_workers.chaos import faults
from ww_workers.chaos.faults import Faults
from ww_workers.chaos.scene import Process, Scene

SERVER = """
import socket, sys, time
from pathlib import Path
while not Path(sys.argv[2]).exists():
    time.sleep(0.02)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    while True:
        server.accept()[0].close()
"""


@pytest.mark.parametrize("kind", ["neo4j_stopped", "neo4j_frozen"])
def test_a_server_that_is_still_starting_is_left_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped again before it ever came up, a slow one would be away for all of a trial."""
    (port,) = free_ports(1)
    may_listen = tmp_path / "listen"
    command = [sys.executable, "-c", SERVER, str(port), str(may_listen)]
    server = Process("server", command, tmp_path, clean_environment(), port=port)
    scene: Any = SimpleNamespace(neo4j=server, ledger=lambda name: tmp_path / name)
    monkeypatch.setattr(faults, "AWAY_SECONDS", (0.0, 0.0))
    made = Faults(cast(Scene, scene), random.Random(1))
    try:
        server.start()
        first = server.pid
        assert not faults.KINDS[kind](made)
        assert (server.pid, server.alive) == (first, True)
        may_listen.touch()
        until(lambda: server.up, what="it listens")
        assert faults.KINDS[kind](made)
        assert server.alive
        assert (server.pid == first) is (kind == "neo4j_frozen")
    finally:
        server.kill()
        made.close()
