"""What waits to be written, here and in a Qdrant server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from tests.contract.vector_stores import MODEL
from tests.unit.maintenance.conftest import Bench
from ww_core.config import Settings
from ww_core.observability.summary import QUEUE_DEPTH
from ww_core.stores.servers.qdrant import QdrantVectorStore

INFO: dict[str, Any] = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "config": {"params": {}, "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000}},
    "payload_schema": {},
}
OPTIMIZER = {"deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 0}


def info(**told: Any) -> models.CollectionInfo:
    config = {**INFO["config"], "optimizer_config": {**OPTIMIZER, "flush_interval_sec": 5}}
    return models.CollectionInfo.model_validate({**INFO, "config": config, **told})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantVectorStore]:
    made = QdrantVectorStore(Settings(qdrant_url=":memory:", data_dir=tmp_path))
    yield made
    made.close()


def test_the_servers_queue_is_read_where_it_tells(store: QdrantVectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert math.isnan(store.update_queue()), "no collection yet"
    store.ensure(MODEL)
    client = store._hot._connected()
    monkeypatch.setattr(client, "get_collection", lambda name: info())
    assert math.isnan(store.update_queue())
    assert "queue_depth" not in store.info()
    monkeypatch.setattr(client, "get_collection", lambda name: info(update_queue={"length": 7}))
    assert store.update_queue() == store.info()["queue_depth"] == 7


def test_a_text_of_several_windows_waits_as_several_points(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(quick_path)
    seen: list[float] = []
    monkeypatch.setattr(
        bench.metrics, "set_gauge", lambda name, value: seen.append(value) if name == QUEUE_DEPTH else 0
    )
    bench.store("a" * 250, "b" * 350, "c")
    assert bench.drain().run().embedded == 3
    assert max(seen) == 3 + 4 + 1
    assert seen[-1] == 0
    bench.close()
