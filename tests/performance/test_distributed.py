"""What a deployment with a broker costs and keeps: messages of a burst, and queries while others are embedded."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from celery import Celery

from tests.processes import BOUND, RedisServer, Worker, until
from ww.bench.figure import p95
from ww.bench.store import texts
from ww.memory.episodic import EpisodicMemory
from ww_core.stores.ports import Dirty

BURST = 10_000
MOST_MESSAGES = 200
QUERIES = 100
MOST_TIMES_IDLE = 3.0


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_burst_costs_few_messages_and_queries_are_quick_while_it_is_embedded(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    start_worker(data, "-Q", "ww.query", "-c", "1")
    start_worker(data, "-Q", "ww.embed,ww", "-c", "1")
    app = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    numbers = count()

    def ask() -> float:
        started = time.perf_counter()
        text = f"why did deploy {next(numbers)} of the service fail"
        app.send_task("ww.embed_query", kwargs={"text": text}, queue="ww.query").get(timeout=BOUND)
        return time.perf_counter() - started

    def messages() -> int:
        with redis_server.client() as client:
            return int(client.info("commandstats")["cmdstat_lpush"]["calls"])

    with EpisodicMemory(data_dir=data, redis_url=redis_server.url) as memory:
        memory.sync.store_batch(texts(100, "warm"))
        memory.sync.flush(timeout=BOUND)
        graph = memory.core.deployment.graph
        until(lambda: not graph.dirty(Dirty.CONTEXT, 1), what="nothing is left to do")
        idle = [ask() for _ in range(QUERIES + 10)][10:]
        before = messages()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(memory.sync.store, texts(BURST)))
        burst = messages() - before
        until(lambda: memory.sync.counts().embedded > 200, what="embedding is under way")
        busy = [ask() for _ in range(QUERIES)]
        counts = memory.sync.counts()
    app.close()
    assert counts.pending + counts.leased > 0, "and it still is"
    ratio = p95(busy) / p95(idle)
    print(
        f"{burst} messages; queries p95 {p95(idle):.1f} ms idle, {p95(busy):.1f} ms while embedding, {ratio:.2f} times"
    )
    assert burst < MOST_MESSAGES
    assert ratio < MOST_TIMES_IDLE
