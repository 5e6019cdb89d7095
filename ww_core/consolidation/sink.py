"""Where a run's findings go: into the stores, staged and invisible, or nowhere when it is only a preview."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from ww_core.consolidation.beside import Beside
from ww_core.consolidation.progress import LeaseLost
from ww_core.stores.ports import GraphStore, Membership, PointChange, VectorStore
from ww_core.stores.routing import Cells, both, cells_of

WRITE = 5000
"""Memberships written in one go."""


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

    A thread writes what was found so far while the run finds more: the graph store leaves it the other core. ``close``
    waits for it, so that nothing is written any more behind a run that broke off.
    """

    def __init__(self, graph: GraphStore, vectors: VectorStore, run_id: str, token: str) -> None:
        self._graph = graph
        self._vectors = vectors
        self._run_id = run_id
        self._token = token
        self._waiting: list[Membership] = []
        self._changes: list[PointChange] = []
        self._writer = Beside("ww-stage")
        self.cells = Cells()
        """Where the points belong once the run is visible."""
        self.staged = 0

    def put(self, memberships: Sequence[Membership], before: Mapping[str, Membership]) -> None:
        """Write them, sooner or later. Raises LeaseLost where the run is no longer this worker's, and what the stores
        raised over earlier ones."""
        for membership in memberships:
            old, new = cells_of(before.get(membership.episode_id)), cells_of(membership)
            if old != new:
                self.cells.put(membership.episode_id, new)
                if old:
                    self._changes.append(PointChange(membership.episode_id, cells=both(old, new)))
        self._waiting += memberships
        self.staged += len(memberships)
        if len(self._waiting) >= WRITE:
            self._hand_over()

    def flush(self) -> None:
        """Have all that was put written. Raises what ``put`` raises."""
        if self._waiting:
            self._hand_over()
        self._writer.wait()

    def close(self) -> None:
        """Write nothing from here on."""
        self._writer.close()

    def _hand_over(self) -> None:
        """Begin to write what is waiting, once what was handed over before is written: more is never held."""
        self._writer.begin(partial(self._write, self._waiting, self._changes))
        self._waiting, self._changes = [], []

    def _write(self, memberships: Sequence[Membership], changes: Sequence[PointChange]) -> None:
        """Memberships first, so that whoever ends the run knows which cells to restore."""
        if memberships and not self._graph.stage(self._run_id, token=self._token, memberships=memberships):
            raise LeaseLost("another worker has taken this run over")
        if changes:
            self._vectors.change(changes)
