"""The memory of who embeds stays flat, whatever the lengths of the texts."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.processes import ROOT, RedisServer, Worker, run_python, until
from ww.cli.demo_text import episodes
from ww.memory.episodic import EpisodicMemory

MINUTES = float(os.environ.get("WW_MEMORY_MINUTES", "10"))
"""How long the worker runs at full scale."""
LONGEST = 20_000
"""Characters of a text; the lengths are spread evenly over their logarithm, so that every kind of batch comes up."""
MOST_GROWTH = 1.1
"""Of the memory after the warm-up. A batch that kept what it took, or a cache without a bound, shows within it."""
WARM_UP = 0.3
"""Share of the time in which the allocator finds its size."""
BACKLOG = 400

ROUNDS = """
import sys
import psutil
from itertools import islice
from tests.performance.test_memory import mixed
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService
service = EmbeddingService(Settings(data_dir=sys.argv[1], embedding_threads=2, embedding_cache_size=200))
texts = mixed(3, longest=2_000)
for _ in range(int(sys.argv[2])):
    rows = service.embed_windows(list(islice(texts, 16)))
    print(psutil.Process().memory_info().rss)
"""


def mixed(seed: int, longest: int = LONGEST) -> Iterator[str]:
    """Texts without end, all different, of 5 to ``longest`` characters."""
    rng = np.random.default_rng(seed)
    words = sorted({word for episode in islice(episodes(), 600) for word in episode.content.split()})
    number = 0
    while True:
        length = int(np.exp(rng.uniform(np.log(5), np.log(longest))))
        picked = rng.integers(0, len(words), max(1, length // 6))
        yield f"{number} " + " ".join(words[i] for i in picked)[:length]
        number += 1


def grown(sizes: list[int]) -> float:
    """The last third's memory in that of the third after the warm-up."""
    kept = sizes[int(len(sizes) * WARM_UP) :]
    third = max(1, len(kept) // 3)
    return statistics.median(kept[-third:]) / statistics.median(kept[:third])


def test_mixed_texts_leave_no_memory_behind(tmp_path: Path) -> None:
    out = run_python(ROUNDS, str(tmp_path), "15", cwd=ROOT)
    sizes = [int(line) for line in out.split()]
    print(f"\nafter rounds of 16 texts: {[size >> 20 for size in sizes]} MiB")
    assert grown(sizes) < MOST_GROWTH
    assert grown([size + 40_000_000 * i for i, size in enumerate(sizes)]) > MOST_GROWTH, "a leak would show"


@pytest.mark.full
@pytest.mark.timeout(2 * 3600 + 60 * MINUTES)
def test_a_worker_keeps_its_size(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    """``WW_MEMORY_MINUTES=60`` for an hour. The vectors belong to this process: what the worker has is its own."""
    sizes: list[int] = []
    with EpisodicMemory("s", data_dir=tmp_path / "data", redis_url=redis_server.url) as memory:
        deployment = memory.core.deployment
        deployment.vectors.ping()
        worker = start_worker(tmp_path / "data", "-c", "1", "-Q", "ww.embed")
        texts = mixed(5)
        started = time.monotonic()
        said = 0.0
        while (spent := time.monotonic() - started) < 60 * MINUTES:
            memory.sync.store_batch(list(islice(texts, BACKLOG // 2)))
            until(lambda: deployment.graph.counts().pending < BACKLOG // 2, within=600, every=1, what="it embeds")
            sizes.append(sum(child.memory_info().rss for child in worker.children()))
            if spent - said > 60:
                said = spent
                done = deployment.graph.counts().embedded
                print(f"{spent / 60:.0f} min, {done:,} texts, {sizes[-1] >> 20} MiB", flush=True)
        embedded = deployment.graph.counts().embedded
        assert psutil.pid_exists(worker.process.pid)
    print(f"{embedded:,} texts, {min(sizes) >> 20} to {max(sizes) >> 20} MiB, grown {grown(sizes):.3f}")
    assert grown(sizes) < MOST_GROWTH
