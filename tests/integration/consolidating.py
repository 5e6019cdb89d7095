"""A session on the embedded stores whose vectors are given, for tests that need to know the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.contract.graphs import GraphAddress
from ww.bench.filled import embedded
from ww_core.config import Settings
from ww_core.consolidation.service import Consolidator
from ww_core.hooks import Hooks
from ww_core.models import Episode, Run, Vector
from ww_core.observability.metrics import Metrics
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.embedded.vectors.store import EdgeVectorStore
from ww_core.stores.ports import Fingerprint, GraphStore, VectorStore

SESSION = "ops"
START = datetime(2026, 1, 1, tzinfo=UTC)
TOPICS = ["nightly backup", "open invoice", "coffee machine", "failing test", "holiday request", "slow query"]


def new_namespace() -> str:
    """For a graph on a server that nobody has used before."""
    return f"t{uuid4().hex[:12]}"


class World:
    """Both stores and a consolidator on them."""

    def __init__(
        self,
        directory: Path,
        *,
        dimension: int = 64,
        neo4j: tuple[str, str] | None = None,
        namespace: str | None = None,
        **settings: Any,
    ) -> None:
        self.settings = Settings(data_dir=directory, **settings)
        self.now = START
        self.address = None if neo4j is None else f"{neo4j[0]} {neo4j[1]} {namespace or new_namespace()}"
        """URI, password and namespace of the graph on a server."""
        self.graph: GraphStore = (
            SqliteGraphStore(directory / "graph.sqlite3", clock=lambda: self.now)
            if self.address is None
            else GraphAddress("neo4j", self.address).open(lambda: self.now)
        )
        self.vectors: VectorStore = EdgeVectorStore.open(directory, namespace="ww")
        self.vectors.ensure(Fingerprint("test", "1", dimension, "mean", True))
        self.hooks = Hooks(metrics=Metrics())
        self.metrics = Metrics()
        self.consolidator = self.with_settings(self.settings)
        self._stored = 0

    def with_settings(self, settings: Settings) -> Consolidator:
        return Consolidator(self.graph, self.vectors, settings, self.hooks, self.metrics, clock=lambda: self.now)

    def close(self) -> None:
        self.vectors.close()
        self.graph.close()

    def store(self, texts: Sequence[str], rows: Vector, *, session: str = SESSION) -> list[str]:
        """Episodes with their vectors, embedded; their ids."""
        ids = [f"e{self._stored + i:07}" for i in range(len(texts))]
        episodes = [
            Episode(text, name, session, START + timedelta(minutes=self._stored + i))
            for i, (text, name) in enumerate(zip(texts, ids, strict=True))
        ]
        self._stored += len(texts)
        embedded(self.graph, self.vectors, None, episodes, rows)
        return ids

    def consolidate(self, session: str = SESSION) -> Run:
        requested = self.graph.request_run(session)
        return self.consolidator.run(requested.run_id, token=uuid4().hex)

    def places(self, ids: Sequence[str]) -> list[str | None]:
        """The cluster of each episode, as readers see it."""
        found = self.graph.get(ids)
        return [found[name].cluster_id for name in ids]

    def nearest(self, ids: Sequence[str]) -> list[str | None]:
        found = self.graph.get(ids)
        return [found[name].cluster_id or found[name].nearest for name in ids]


def texts(labels: Any) -> list[str]:
    return [f"and that is the {TOPICS[label]} {i}" if label >= 0 else f"{i} is odd" for i, label in enumerate(labels)]
