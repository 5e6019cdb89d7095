"""A worker of the pool ``gpu`` on a real CUDA device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import BOUND, RedisServer, Worker
from ww.bench.embedding import prose
from ww.memory.episodic import EpisodicMemory
from ww_core.embedding.torch_backend import pick_device
from ww_core.stores.ports import Queue


def test_what_a_gpu_embeds_in_half_precision_is_found_by_a_process_on_the_cpu(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    if pick_device("auto") != "cuda":
        pytest.skip("torch finds no CUDA device")
    worker = start_worker(
        tmp_path / "data",
        *("-Q", Queue.EMBED, "-P", "prefork", "-c", "1", "--", "worker.pool_start_method=spawn"),
        T4DM_EMBEDDING_DEVICE="cuda",
        T4DM_EMBEDDING_FP16="true",
    )
    texts = prose(3000)
    with EpisodicMemory(
        session_id="gpu", data_dir=tmp_path / "data", redis_url=redis_server.url, embedding_device="cpu"
    ) as memory:
        memory.sync.store_batch(texts)
        memory.sync.flush(timeout=2 * BOUND)
        assert memory.sync.verify().ok
        assert memory.sync.recall(texts[17]).results[0].content == texts[17]
    assert "cuda" in worker.output()
    assert worker.terminate() < 40
