"""The filter that both stores take: which episodes are meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Where:
    """Which episodes are meant. Empty parts do not restrict; parts are joined by AND, values of a part by OR."""

    sessions: tuple[str, ...] = ()
    since: datetime | None = None
    """Inclusive."""
    until: datetime | None = None
    """Exclusive."""
    outcomes: tuple[str, ...] = ()
    context: Mapping[str, str] = field(default_factory=dict)
    """Top-level context keys and the text of their (scalar) values; all must match."""
    cells: tuple[str, ...] = ()
    """Cluster ids: members, and unclustered episodes routed to them (vector store only)."""
    uncelled: bool = False
    """With ``cells``: also points that no run has looked at yet."""
    episode_ids: tuple[str, ...] = ()
    archived: bool | None = False
    """None: archived or not."""
