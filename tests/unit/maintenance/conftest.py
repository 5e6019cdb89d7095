"""Real stores in a temporary directory, a drain on them, and time that moves when told to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.unit.maintenance.embedder import Embedder
from ww_core.config import Settings
from ww_core.embedding.sparse import SparseEncoder
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.drain import Drain
from ww_core.maintenance.refresh import Refresh
from ww_core.maintenance.verify import verify
from ww_core.models import Episode, Verification
from ww_core.observability.metrics import Metrics
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.embedded.vectors import EdgeVectorStore
from ww_core.stores.ports import VectorStore

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Bench:
    """Stores, model and clock, and what is built on them."""

    def __init__(self, directory: Path) -> None:
        self.seconds = 0.0
        self.graph = SqliteGraphStore(directory / "graph.sqlite3", clock=lambda: NOON + timedelta(seconds=self.seconds))
        self.vectors: VectorStore = EdgeVectorStore.open(directory, namespace="ww")
        self.embedder = Embedder()
        self.metrics = Metrics()
        self.breaker = CircuitBreaker(clock=self.clock, random=lambda: 1.0)
        self.settings = Settings(data_dir=directory, task_max_attempts=2, embedding_lease=60)

    def clock(self) -> float:
        return self.seconds

    def drain(self, **options: object) -> Drain:
        wanted = {
            "sparse": SparseEncoder(),
            "breaker": self.breaker,
            "clock": self.clock,
            "retry_seconds": 0.0,
            **options,
        }
        return Drain(self.graph, self.vectors, self.embedder, self.settings, self.metrics, **wanted)  # type: ignore[arg-type]

    def refresh(self) -> Refresh:
        return Refresh(
            self.graph,
            self.vectors,
            SparseEncoder(),
            self.metrics,
            breaker=self.breaker,
            clock=self.clock,
        )

    def store(self, *texts: str, session: str = "s") -> list[str]:
        """Ids are e0, e1, ... in the order of all stored so far."""
        first = self.graph.counts().acknowledged
        episodes = [
            Episode(text, episode_id=f"e{i}", session_id=session, timestamp=NOON + timedelta(seconds=i))
            for i, text in enumerate(texts, first)
        ]
        self.graph.add(episodes)
        return [episode.episode_id for episode in episodes]

    def verify(self) -> Verification:
        return verify(self.graph, self.vectors)

    def close(self) -> None:
        self.vectors.close()
        self.graph.close()


@pytest.fixture
def bench(quick_path: Path) -> Iterator[Bench]:
    made = Bench(quick_path)
    yield made
    made.close()
