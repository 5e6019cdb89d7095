"""What the vector port takes and returns: points and their vectors, searches and hits, centroids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Vector
from ww_core.stores.ports.where import Where

CONTENT = "content"
CONTEXT = "context"
DENSE_NAMES: tuple[str, ...] = (CONTENT, CONTEXT)
BM25 = "bm25"
BM25_CONTEXT = "bm25_context"
SPARSE_NAMES: tuple[str, ...] = (BM25, BM25_CONTEXT)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """``indices`` uint32 (m,), ascending; ``values`` float32 (m,)."""

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What makes vectors comparable; the collection is named by its digest."""

    model: str
    revision: str
    dimension: int
    pooling: str
    normalised: bool

    def digest(self) -> str:
        """12 hexadecimal characters."""
        from hashlib import sha256

        parts = (self.model, self.revision, str(self.dimension), self.pooling, str(self.normalised))
        return sha256("\x1f".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Point:
    """One window of one episode. Its id is a UUID5 of namespace, episode id and window."""

    episode_id: str
    window: int
    windows: int
    generation: int
    session_id: str
    timestamp: datetime
    dense: Mapping[str, Vector]
    """By name, each (d,)."""
    sparse: Mapping[str, SparseVector] = field(default_factory=dict)
    outcome: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    """The scalar top-level values of the episode's context, as text."""
    importance: float = 0.5
    cells: tuple[str, ...] = ()
    archived: bool = False
    pieces: bytes = b""
    """What late interaction reads of the episode, where that is kept (ww_core.recall.pieces); on window 0."""


class PointChange(NamedTuple):
    """New values for every point of an episode; None leaves a part as it is. Points that do not exist stay absent."""

    episode_id: str
    dense: Mapping[str, Vector] = MappingProxyType({})
    sparse: Mapping[str, SparseVector] = MappingProxyType({})
    timestamp: datetime | None = None
    outcome: str | None = None
    context: Mapping[str, str] | None = None
    importance: float | None = None
    cells: tuple[str, ...] | None = None
    archived: bool | None = None


class Hit(NamedTuple):
    """One episode found, with its best window's score (cosine -1 to 1 for dense, BM25 >= 0 for sparse)."""

    episode_id: str
    window: int
    score: float


@dataclass(frozen=True, slots=True)
class Search:
    """One signal of a query: ``using`` names the vector.

    ``exact``: nothing is missed, and scores are those of the whole vectors. Otherwise some of the best may be missed,
    and where the episodes are named their scores may be those of compressed vectors.
    """

    using: str
    vector: Vector | SparseVector
    where: Where = field(default_factory=Where)
    limit: int = 10
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Centroid:
    """Of one cluster in one attempt at a run (``Run.attempt``); ``vector`` (d,) unit length."""

    cluster_id: str
    session_id: str
    attempt: str
    vector: Vector
    radius: float


@dataclass(frozen=True, slots=True)
class StoredVector:
    """``vector`` is the normalised mean of the windows' ``content`` vectors."""

    episode_id: str
    vector: Vector


@dataclass(frozen=True, slots=True, eq=False)
class StoredVectors:
    """n of them, in one matrix. A row as an object of its own is made when it is asked for."""

    episode_ids: Sequence[str]
    rows: Vector
    """(n, d); (0, 0) where there is none."""

    @classmethod
    def none(cls) -> StoredVectors:
        """Of no episode."""
        return cls((), np.empty((0, 0), np.float32))

    def __len__(self) -> int:
        return len(self.episode_ids)

    def __getitem__(self, row: int) -> StoredVector:
        return StoredVector(self.episode_ids[row], self.rows[row])

    def __iter__(self) -> Iterator[StoredVector]:
        return map(StoredVector, self.episode_ids, self.rows)
