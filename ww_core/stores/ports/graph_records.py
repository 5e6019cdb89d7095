"""What the graph port takes and returns beside the models: claims, memberships, dirty flags."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import NamedTuple, TypeAlias

from ww_core.models import Episode, State
from ww_core.stores.values import to_time

Place: TypeAlias = tuple[datetime, int, str]
"""Of an episode in the record's order: timestamp, position, id."""

CONTEXT_NEIGHBOURS = 2
"""How many episodes on each side in the session's order an episode's context takes in."""


class Added(Enum):
    """What became of one episode handed to ``add``."""

    CREATED = "created"
    DUPLICATE = "duplicate"
    """Same id, same content: nothing changed."""
    CONFLICT = "conflict"
    """Same id, other content or session: refused."""
    CORRECTED = "corrected"
    """Same id and session, the content first stored under it, which ``update`` has replaced since: refused."""
    ERASED = "erased"
    """The id was forgotten for good: refused."""


@dataclass(frozen=True, slots=True)
class AddResult:
    """``state`` is the state of the row that holds the id now."""

    outcome: Added
    state: State


@dataclass(frozen=True, slots=True)
class Claim:
    """An episode leased to one worker. ``generation`` rises with every claim of the row."""

    episode: Episode
    token: str
    generation: int
    deliveries: int
    """How often the row was claimed since it last made progress."""
    alone: bool
    """The row was handed out by itself because earlier leases that held it expired."""


class Fresh(NamedTuple):
    """What a run has to know of an embedded episode that no run has looked at: there may be a million of them."""

    episode_id: str
    content: str
    at: int
    """Microseconds since 1970, UTC."""
    position: int
    generation: int
    """Rises before an episode with another content is embedded."""
    windows: int
    """It has so many vectors."""

    @property
    def timestamp(self) -> datetime:
        return to_time(self.at)


@dataclass(frozen=True, slots=True)
class ReadTexts:
    """What a run has read: the text of each episode as a digest (``ww_core.stores.texts``)."""

    episode_ids: Sequence[str]
    digests: bytes
    """One behind the other."""
    generation: int
    """That all of them had."""


def place_of(episode: Episode | Fresh) -> Place:
    """Where a stored episode is."""
    assert episode.timestamp is not None  # noqa: S101 - every stored episode has one
    return episode.timestamp, episode.position, episode.episode_id


class Membership(NamedTuple):
    """Where a run puts an episode. ``cluster_id`` None: unclustered; ``nearest`` routes it all the same."""

    episode_id: str
    cluster_id: str | None
    nearest: str | None
    distance: float
    """1 - cosine to the centroid of ``cluster_id``, else of ``nearest``."""
    duplicate_of: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """An episode that a run placed: the cluster that it belongs to, or is nearest to, in that run and in the state
    before it, None where there is none."""

    episode_id: str
    to: str | None
    back: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """What the visible runs of all sessions come to."""

    sessions: int = 0
    """That have a visible run; where there is none the others say nothing."""
    clusters: int = 0
    merged: int = 0
    """Of the clusters those that the visible run made of several."""
    split: int = 0
    """Of the clusters those that the visible run made by splitting one."""
    considered: int = 0
    """Episodes that were new to the visible runs."""
    noise: int = 0
    """Of these, those that belong to no cluster."""
    sampled: int = 0
    """Episodes that were clustered by the visible run that ended last."""
    seconds: float = 0.0
    """That it took."""


class Dirty(StrEnum):
    """Derived data of an embedded episode that no longer matches the record."""

    PAYLOAD = "payload"
    """Metadata, cell, archive flag in the vector store's payload."""
    CONTEXT = "context"
    """A neighbour in the session arrived or changed: the context vectors are stale."""


@dataclass(frozen=True, slots=True)
class DirtyRow:
    """``version`` identifies the change: clearing is a compare-and-swap on it."""

    episode: Episode
    version: int


@dataclass(frozen=True, slots=True)
class Strength:
    """What a recall leaves behind: FSRS ``stability`` in days from then on."""

    episode_id: str
    stability: float
    recalled_at: datetime
