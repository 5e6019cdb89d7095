"""What a Qdrant server takes is measured where it can be seen, and said to be unseen elsewhere."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest

from tests.support.qdrant_server import QdrantServer
from ww.bench import served
from ww.bench.corpus import made_up
from ww.bench.figure import SCALES, Bench
from ww_core.capacity import Demand, plan
from ww_core.config import Settings

STORED = 1000


def taken(tmp_path: Path, **changes: object) -> dict[str, tuple[int, int]]:
    bench = Bench(tmp_path, SCALES["tiny"], Settings(data_dir=tmp_path).replace(**changes))
    found = served.qdrant(made_up(STORED, 10), bench, plan(Demand(STORED)))
    return {name: (measured, planned) for name, measured, planned in found}


def test_a_server_of_this_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = QdrantServer(tmp_path / "qdrant")
    server.start()
    try:
        monkeypatch.setenv("QDRANT_URL", server.url)
        found = taken(tmp_path, qdrant_grpc_port=server.grpc_port)
        assert [planned for _, planned in found.values()] == [
            plan(Demand(STORED)).qdrant_disk,
            plan(Demand(STORED)).qdrant_memory,
        ]
        vectors = 2 * 4 * 384 * STORED
        assert all(measured > vectors for measured, _ in found.values()), "each vector lies on disk and in memory"
        assert server.get("/collections")["collections"] == [], "nothing is left there"
    finally:
        server.kill()


def test_what_cannot_be_seen_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert served._listening(url).pid == psutil.Process().pid
        with pytest.raises(served.Unseen, match="files"):
            served._folder(psutil.Process(), "no-collection")
    for missing, why in ((None, "is not set"), (url, "listens at 127"), ("http://far.invalid:80", "listens at far")):
        monkeypatch.setenv("QDRANT_URL", missing) if missing else monkeypatch.delenv("QDRANT_URL", raising=False)
        with pytest.raises(served.Unseen, match=why):
            taken(tmp_path)
