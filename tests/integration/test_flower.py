"""``ww flower`` as a process, on loopback, before its own pages."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import httpx

from tests.processes import ROOT, RedisServer, clean_environment, free_ports, until


def test_pages_ask_for_the_password_that_is_set(redis_server: RedisServer, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    # the setting flower_basic_auth
    given = {"PYTHONPATH": str(ROOT), "T4DM_REDIS_URL": redis_server.url, "T4DM_FLOWER_BASIC_AUTH": "ann:s3cret"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ww.cli", "--data-dir", str(tmp_path / "data"), "flower", "--port", str(port)],
            env=clean_environment(**given),
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}/workers"

    def status(auth: tuple[str, str] | None) -> int:
        try:
            return httpx.get(url, auth=auth, timeout=30).status_code
        except httpx.TransportError:
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            return 0

    try:
        until(lambda: status(None), what="Flower answers")
        assert [status(None), status(("ann", "wrong")), status(("ann", "s3cret"))] == [401, 401, 200]
        if (command := Path(f"/proc/{process.pid}/cmdline")).exists():
            assert "s3cret" not in command.read_text(), "every process list shows arguments"
    finally:
        process.kill()
        process.wait()


def test_where_it_cannot_listen_is_one_line(tmp_path: Path) -> None:
    given = clean_environment(PYTHONPATH=str(ROOT), T4DM_REDIS_URL="redis://127.0.0.1:1/0")
    flower = [sys.executable, "-m", "ww.cli", "--data-dir", str(tmp_path / "data"), "flower"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for place in (("--port", port), ("--address", "192.0.2.1"), ("--port", "99999")):
            done = subprocess.run([*flower, *place], env=given, capture_output=True, text=True, timeout=90)
            assert (done.returncode, done.stdout) == (2, ""), done.stderr
            assert place[1] in done.stderr
            assert "Traceback" not in done.stderr
