"""Every vector store there is, for the conformance suite, points to put into them, and what is found there."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.processes import ROOT
from ww_core.stores.embedded.vectors import EdgeVectorStore
from ww_core.stores.ports import (
    BM25,
    BM25_CONTEXT,
    CONTENT,
    CONTEXT,
    Fingerprint,
    Point,
    Search,
    SparseVector,
    VectorStore,
    Where,
)

if TYPE_CHECKING:
    from ww_core.stores.servers.qdrant import QdrantVectorStore

DIMENSION = 8
MODEL = Fingerprint("first-model", "1", DIMENSION, "mean", True)
OTHER_MODEL = Fingerprint("second-model", "1", DIMENSION, "mean", True)
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

SERVERS = ("qdrant-grpc", "qdrant-http")
"""A server of ``QDRANT_URL``, over each of its two channels."""
ADAPTERS = ("edge-owner", "edge-client", "qdrant-memory", *SERVERS)


def unit(*numbers: float) -> np.ndarray:
    """A unit vector of DIMENSION numbers that starts with these."""
    vector = np.zeros(DIMENSION, np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def random_unit(rng: np.random.Generator) -> np.ndarray:
    return unit(*rng.standard_normal(DIMENSION))


def words(**weights: float) -> SparseVector:
    """A sparse vector over the terms t0, t1, ..."""
    terms = sorted((int(name[1:]), weight) for name, weight in weights.items())
    return SparseVector(np.array([t for t, _ in terms], np.uint32), np.array([w for _, w in terms], np.float32))


def point(
    episode_id: str,
    vector: np.ndarray | None = None,
    *,
    window: int = 0,
    windows: int = 1,
    generation: int = 1,
    session: str = "s",
    minutes: float = 0,
    bm25: SparseVector | None = None,
    outcome: str | None = None,
    context: Mapping[str, str] | None = None,
    cells: tuple[str, ...] = (),
    archived: bool = False,
    pieces: bytes = b"",
) -> Point:
    content = unit(1.0) if vector is None else vector
    terms = words(t1=1.0) if bm25 is None else bm25
    return Point(
        episode_id=episode_id,
        window=window,
        windows=windows,
        generation=generation,
        session_id=session,
        timestamp=NOON + timedelta(minutes=minutes),
        dense={CONTENT: content, CONTEXT: content},
        sparse={BM25: terms, BM25_CONTEXT: terms},
        outcome=outcome,
        context=context or {},
        cells=cells,
        pieces=pieces,
        archived=archived,
    )


class OwnerProcess:
    """A subprocess that owns whichever data directory it is told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.vector_owner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def own(self, data_dir: Path) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{data_dir}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "owned"

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()


def qdrant(**settings: object) -> QdrantVectorStore:
    # Imported late: processes that only need the embedded store start a second sooner.
    from ww_core.config import Settings
    from ww_core.stores.servers.qdrant import QdrantVectorStore

    return QdrantVectorStore(Settings(**settings))


@contextmanager
def opened(adapter: str, data_dir: Path, owner: OwnerProcess | None = None) -> Iterator[VectorStore]:
    """An empty store without a collection; what it leaves on a server is removed afterwards."""
    store: VectorStore
    match adapter:
        case "edge-owner":
            store = EdgeVectorStore.open(data_dir, namespace="ww")
        case "edge-client":
            assert owner is not None
            owner.own(data_dir)
            store = EdgeVectorStore.open(data_dir, namespace="ww")
        case "qdrant-memory":
            store = qdrant(qdrant_url=":memory:")
        case "qdrant-grpc" | "qdrant-http":
            store = qdrant(
                qdrant_url=os.environ["QDRANT_URL"],
                qdrant_grpc=adapter == "qdrant-grpc",
                namespace=f"t{uuid.uuid4().hex[:12]}",
            )
        case _:
            raise ValueError(adapter)
    try:
        yield store
    finally:
        if adapter in SERVERS:
            store.drop()  # type: ignore[attr-defined]
        store.close()


def ids(store: VectorStore, where: Where = Where(), *, limit: int = 100) -> set[str]:  # noqa: B008 - frozen
    """The episodes that a search in ``where`` finds."""
    return {hit.episode_id for hit in store.search([Search(CONTENT, unit(1.0), where, limit)])[0]}


def ranked(
    store: VectorStore, using: str, vector: np.ndarray | SparseVector, **more: object
) -> list[tuple[str, float]]:
    hits = store.search([Search(using, vector, **more)])[0]  # type: ignore[arg-type]
    return [(hit.episode_id, hit.score) for hit in hits]


def cold_points(store: VectorStore) -> int:
    """Points in the cold collection."""
    return int(store.info().get("cold", {}).get("points", 0))


def walked(store: VectorStore, limit: int = 1000) -> list[tuple[str, int]]:
    rows, after = store.walk(limit=limit)
    while after is not None:
        page, after = store.walk(after=after, limit=limit)
        rows += page
    return rows
