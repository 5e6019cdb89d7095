"""The graph adapters that the conformance suite runs on, and how any process opens one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ww_core.config import Settings
from ww_core.models import Episode
from ww_core.stores.embedded.graph import SqliteGraphStore
from ww_core.stores.ports import Claim, Dirty, GraphStore
from ww_core.stores.servers.neo4j import Neo4jGraphStore

GRAPH_KINDS = ("sqlite", "neo4j")

START = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Clock:
    """The store's own clock, which tests move."""

    def __init__(self) -> None:
        self.now = START + timedelta(days=1)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass(frozen=True)
class GraphAddress:
    """Where a graph store lives: enough to open it in another process."""

    kind: str
    location: str

    def open(self, clock: Callable[[], datetime] | None = None) -> GraphStore:
        match self.kind:
            case "sqlite":
                return SqliteGraphStore(Path(self.location), clock=clock)
            case "neo4j":
                return Neo4jGraphStore(neo4j_settings(self.location), clock=clock)
        raise ValueError(self.kind)


def neo4j_settings(location: str, **changes: object) -> Settings:
    """``location``: URI, password and namespace, each behind a blank."""
    uri, password, namespace = location.split(" ")
    data_dir = Path(os.environ.get("WW_TEST_RUN", tempfile.gettempdir())) / "data"  # of the run, and removed with it
    given = {"neo4j_uri": uri, "neo4j_password": password, "namespace": namespace, "data_dir": data_dir}
    values = {**given, **changes}
    return Settings(**values)  # type: ignore[arg-type]


def episodes(number: int, *, session: str = "s", start: int = 0, prefix: str = "e") -> list[Episode]:
    """Episodes of one session, a minute apart, in order of their ids."""
    return [
        Episode(
            content=f"text {i} of {session}",
            episode_id=f"{prefix}{i:05d}",
            session_id=session,
            timestamp=START + timedelta(minutes=i),
            position=i,
        )
        for i in range(start, start + number)
    ]


def ids(items: Sequence[Episode]) -> list[str]:
    return [episode.episode_id for episode in items]


def claimed(claims: Sequence[Claim]) -> list[str]:
    return [claim.episode.episode_id for claim in claims]


def embed(graph: GraphStore, number: int = 10_000, *, token: str = "embedder") -> list[str]:
    """Claim and mark up to ``number`` rows, as a worker does; the ids that were marked."""
    marked: list[str] = []
    while len(marked) < number:
        claims = graph.claim(min(512, number - len(marked)), token=token, lease_seconds=60)
        if not claims:
            break
        marked += sorted(graph.mark_embedded(token, dict.fromkeys(claimed(claims), 1)))
    return marked


def clear(graph: GraphStore, *kinds: Dirty) -> None:
    """Clear what is dirty, of every kind where none is named."""
    for kind in kinds or Dirty:
        while rows := graph.dirty(kind, 100):
            graph.clear_dirty(kind, {row.episode.episode_id: row.version for row in rows})
