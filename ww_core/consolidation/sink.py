"""Where a run's findings go: into the stores, staged and invisible, or nowhere when it is only a preview."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from ww_core.consolidation.progress import LeaseLost
from ww_core.stores.ports import GraphStore, Membership, PointChange, VectorStore

WRITE = 5000
"""Memberships written in one go: the vector store changes all points of one cell at once."""


class Sink(Protocol):
    """Takes memberships as they are found."""

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Take memberships; ``before`` holds those that the current run has for some of the episodes."""


class Preview:
    """Keeps nothing: what a dry run writes."""

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Forget them."""


class Stage:
    """Writes memberships that nobody sees until the run is published.

    An episode's points get the new cell beside the old one first: readers of the current run and of the coming one
    both find it, and check the membership in the graph. ``trim`` takes the old cells away after publication.
    """

    def __init__(self, graph: GraphStore, vectors: VectorStore, run_id: str, token: str) -> None:
        self._graph = graph
        self._vectors = vectors
        self._run_id = run_id
        self._token = token
        self._moved: dict[str, tuple[str, ...]] = {}
        self._waiting: list[Membership] = []
        self._changes: list[PointChange] = []
        self.staged = 0

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Write them, sooner or later. Raises LeaseLost where the run is no longer this worker's."""
        for membership in memberships:
            old, new = cells_of(before.get(membership.episode_id)), cells_of(membership)
            if old != new:
                self._changes.append(
                    PointChange(membership.episode_id, cells=(*old, *(c for c in new if c not in old)))
                )
            if old and old != new:
                self._moved[membership.episode_id] = new
        self._waiting += memberships
        if len(self._waiting) >= WRITE:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting: memberships first, so that whoever ends the run knows which cells to restore."""
        if self._waiting and not self._graph.stage(self._run_id, token=self._token, memberships=self._waiting):
            raise LeaseLost("another worker has taken this run over")
        if self._changes:
            self._vectors.change(self._changes)
        self.staged += len(self._waiting)
        self._waiting, self._changes = [], []

    def trims(self) -> Iterator[list[PointChange]]:
        """What takes the old cells away, in batches."""
        changes = [PointChange(episode_id, cells=cells) for episode_id, cells in self._moved.items()]
        for start in range(0, len(changes), WRITE):
            yield changes[start : start + WRITE]


def cells_of(membership: Membership | None) -> tuple[str, ...]:
    """The cell that routes to an episode: its cluster, else the nearest one, else none."""
    return route(membership.cluster_id, membership.nearest) if membership is not None else ()


def route(cluster_id: str | None, nearest: str | None) -> tuple[str, ...]:
    """The same from its parts."""
    cell = cluster_id or nearest
    return (cell,) if cell else ()
