"""The domain objects: what an episode, a cluster, a run and a recollection are.

All are frozen dataclasses. Times are timezone-aware UTC datetimes with microsecond resolution; durations are
seconds unless a name ends in ``_ms``; vectors are float32 numpy arrays whose rows have length 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from ww_core.prompt import as_text

Vector: TypeAlias = NDArray[np.float32]
Outcome: TypeAlias = Literal["success", "failure", "partial", "neutral"]
OUTCOMES: tuple[str, ...] = ("success", "failure", "partial", "neutral")

DEFAULT_SESSION = "default"
MAX_CONTENT_CHARS = 50_000
MAX_ID_CHARS = 128
MAX_CONTEXT_BYTES = 16 * 1024
DEFAULT_IMPORTANCE = 0.5


class State(StrEnum):
    """Where an acknowledged episode is. Archived and folded are flags of an embedded one, not states."""

    PENDING = "pending"
    LEASED = "leased"
    EMBEDDED = "embedded"
    DEAD = "dead"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Episode:
    """One short text of an agent's life.

    Applications fill the first block; the second is what the store knows: storing ignores it, and of it an import
    brings back whether the episode is archived and how it was recalled.
    ``position`` is the place in the call or file: order within a session is (timestamp, position, episode_id).
    """

    content: str
    episode_id: str = ""
    session_id: str = DEFAULT_SESSION
    timestamp: datetime | None = None
    context: Mapping[str, Any] = field(default_factory=dict)
    outcome: str | None = None
    importance: float = DEFAULT_IMPORTANCE
    position: int = 0

    state: State | None = None
    stored_at: datetime | None = None
    embedded_at: datetime | None = None
    generation: int = 0
    windows: int = 0
    """How many points the episode has in the vector store (one per window of its text)."""
    cluster_id: str | None = None
    nearest: str | None = None
    """The cluster whose centroid is nearest, also for an episode that belongs to none."""
    duplicate_of: str | None = None
    archived: bool = False
    stability: float = 0.0
    """FSRS stability in days; 0 until the episode was recalled for the first time (then the default applies)."""
    last_recalled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What ``store`` acknowledges: the episode is durable. ``duplicate`` is true where it was there before."""

    episode_id: str
    state: State
    duplicate: bool


@dataclass(frozen=True, slots=True)
class BatchReceipt:
    """``accepted`` in input order; ``rejected`` holds (index in the input, error)."""

    accepted: tuple[Receipt, ...]
    rejected: tuple[tuple[int, Exception], ...]


@dataclass(frozen=True, slots=True)
class ClusterRef:
    """The cluster of a recollection."""

    cluster_id: str
    label: str


@dataclass(frozen=True, slots=True)
class Fold:
    """An episode and those that consolidation folded with it, since they say the same."""

    count: int
    """Of all of them."""
    first: datetime
    last: datetime
    """The time they span."""


@dataclass(frozen=True, slots=True)
class Recollection:
    """One result of a recall. ``components`` are the weighted parts that add up to ``score``."""

    episode_id: str
    content: str
    score: float
    components: Mapping[str, float]
    session_id: str
    timestamp: datetime
    context: Mapping[str, Any]
    outcome: str | None
    cluster: ClusterRef | None
    fold: Fold | None = None
    """What it stands for, where it is shown once for several."""


@dataclass(frozen=True, slots=True)
class Recall(Sequence[Recollection]):
    """The answer to a query, best first."""

    query: str
    mode: str
    """``flat``, ``hierarchical``, or ``bm25`` where the model could not be reached in time."""
    took_ms: float
    results: tuple[Recollection, ...] = ()

    def __len__(self) -> int:
        return len(self.results)

    @overload
    def __getitem__(self, index: int) -> Recollection: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Recollection]: ...
    def __getitem__(self, index: int | slice) -> Recollection | Sequence[Recollection]:
        return self.results[index]

    def __iter__(self) -> Iterator[Recollection]:
        return iter(self.results)

    def as_text(self, *, max_tokens: int = 1000, order: Literal["time", "relevance"] = "time") -> str:
        """A dated block for a prompt of at most about ``max_tokens`` tokens, never empty where there are results (see
        ww_core.prompt)."""
        return as_text(self.results, max_tokens=max_tokens, order=order)


Change: TypeAlias = Literal["new", "kept", "merged", "split", "gone"]


@dataclass(frozen=True, slots=True)
class Medoid:
    """The episode nearest to its cluster's centroid: the cluster's example."""

    episode_id: str
    content: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """A group of episodes of one session, as one run sees it. With ``change`` gone its size is 0 and the next run
    does not know it: readers of the current clusters leave it out."""

    cluster_id: str
    session_id: str
    label: str
    size: int
    keyphrases: tuple[str, ...] = ()
    medoid: Medoid | None = None
    change: Change = "new"
    parents: tuple[str, ...] = ()
    """The clusters it came from, where it was merged or split."""
    radius: float = 0.0
    """Largest distance (1 - cosine) from the centroid at which an episode still belongs, range 0 to 2."""
    created_at: datetime | None = None
    exemplars: tuple[str, ...] = ()
    """Episode ids, a fair draw of the members, that stand for the cluster in later runs."""
    cohesion: float = 0.0
    """Mean cosine of the members to the centroid, range 0 to 1; with ``size`` it lets the centroid take in more."""
    clustered_size: int = 0
    """Members when it was last clustered, not only assigned to: growth since then is what may split or merge it."""
    strays: int = 0
    """Episodes since then that were nearest to it and fitted badly: what drift is measured by."""
    theme_id: str = ""
    """The theme that it is in; empty where a session has too few clusters for themes."""


@dataclass(frozen=True, slots=True)
class Theme:
    """A few clusters of one session that are about the same: the level above them."""

    theme_id: str
    session_id: str
    label: str
    size: int
    """Episodes in its clusters."""
    cluster_ids: tuple[str, ...]
    """The largest first."""


RunStatus: TypeAlias = Literal["requested", "running", "done", "failed", "cancelled", "rolled_back", "dry_run"]


@dataclass(frozen=True, slots=True)
class Run:
    """One consolidation of one session. ``seq`` counts the session's runs from 1."""

    run_id: str
    session_id: str
    status: RunStatus
    seq: int = 0
    window: str | None = None
    """Idempotence key of a scheduled run: one run per session and window."""
    requested_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    considered: int = 0
    sampled: int = 0
    assigned: int = 0
    noise: int = 0
    folded: int = 0
    clusters: tuple[Cluster, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    progress: float = 0.0
    """Share of the work done, 0 to 1."""
    attempt: str = ""
    """Which attempt at the run this is, for what is kept of it beside the record; empty before the first."""


def attempt(run_id: str, version: int) -> str:
    """The name of one attempt at a run: each start of any run of the session has a version of its own, from 1."""
    return f"{run_id}.{version}" if version else ""


def of_attempt(name: str) -> tuple[str, int]:
    """Run id and version; version 0, which no attempt has, where it is no such name."""
    run_id, _, version = name.rpartition(".")
    return (run_id, int(version)) if version.isascii() and version.isdigit() and len(version) < 16 else (name, 0)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as ``sessions`` lists it."""

    session_id: str
    episodes: int
    """Episodes that were neither erased nor rejected."""
    first_at: datetime | None
    last_at: datetime | None
    clusters: int


@dataclass(frozen=True, slots=True)
class Counts:
    """The accounting invariant: acknowledged = pending + leased + embedded + dead + erased."""

    acknowledged: int
    pending: int
    leased: int
    embedded: int
    dead: int
    erased: int

    @property
    def balanced(self) -> bool:
        return self.acknowledged == self.pending + self.leased + self.embedded + self.dead + self.erased


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why an episode could not be embedded."""

    episode_id: str
    session_id: str
    attempts: int
    error: str
    """``ErrorClass: message``."""
    traceback: str
    last_failed_at: datetime


@dataclass(frozen=True, slots=True)
class Erased:
    """The receipt of ``forget``."""

    episodes: int
    vectors: int
    memberships: int


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``verify``: what should be, and what is."""

    name: str
    ok: bool
    expected: int
    found: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of ``verify``."""

    ok: bool
    checks: tuple[Check, ...]


def scalar_context(context: Mapping[str, Any]) -> dict[str, str]:
    """The top-level values of a context that filters compare, as text: text as it is, numbers, true, false and null as
    in JSON. Lists and objects are no scalars and are left out."""
    texts: dict[str, str] = {}
    for key, value in context.items():
        if isinstance(value, str):
            texts[key] = value
        elif value is None or isinstance(value, bool | int | float):
            texts[key] = json.dumps(value)
    return texts
