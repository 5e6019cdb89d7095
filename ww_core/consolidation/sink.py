"""Where a run's findings go: into the stores, staged and invisible, or nowhere when it is only a preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ww_core.consolidation.progress import LeaseLost
from ww_core.consolidation.routing import WRITE, Cells, both, cells_of
from ww_core.stores.ports import GraphStore, Membership, PointChange, VectorStore


class Sink(Protocol):
    """Takes memberships as they are found."""

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Take memberships; ``before`` holds those that the current run has for some of the episodes."""


class Preview:
    """Keeps nothing: what a dry run writes."""

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Forget them."""


class Stage:
    """Writes memberships that nobody sees until the run is published."""

    def __init__(self, graph: GraphStore, vectors: VectorStore, run_id: str, token: str) -> None:
        self._graph = graph
        self._vectors = vectors
        self._run_id = run_id
        self._token = token
        self._waiting: list[Membership] = []
        self._changes: list[PointChange] = []
        self.cells = Cells()
        """Where the points belong once the run is visible."""
        self.staged = 0

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Write them, sooner or later. Raises LeaseLost where the run is no longer this worker's."""
        for membership in memberships:
            old, new = cells_of(before.get(membership.episode_id)), cells_of(membership)
            if old != new:
                self.cells.put(membership.episode_id, new)
                if old:
                    self._changes.append(PointChange(membership.episode_id, cells=both(old, new)))
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
