"""The vector port: points by episode, and the centroids of runs. Derived data that can be rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ww_core.stores.ports.vector_records import (
    Centroid,
    Fingerprint,
    Hit,
    Point,
    PointChange,
    Search,
    StoredVectors,
)
from ww_core.stores.ports.where import Where


class VectorStore(Protocol):
    """Points by episode, and the centroids of runs. Derived data."""

    def ping(self) -> None: ...

    def close(self) -> None: ...

    def ensure(self, fingerprint: Fingerprint) -> None:
        """Create the collection, or check that the one there holds vectors of this fingerprint.

        Raises ConfigurationError naming both models.
        """

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points where none of a higher or equal generation is stored, and drop windows of older generations
        of the same episodes. Waits until the write is applied."""

    def change(self, changes: Sequence[PointChange]) -> None:
        """Update vectors and payload of existing points, never replacing them."""

    def set_cells(self, episode_ids: Sequence[str], cells: tuple[str, ...]) -> None:
        """Do so with the cells alone, which are the same for all points of these episodes: a run sets a million."""

    def delete(self, episode_ids: Sequence[str]) -> int:
        """Remove all points of the episodes; how many points there were."""

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """One list per search, best first, each episode at most once."""

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """(generation, number of points) of each episode that has points."""

    def vectors(self, episode_ids: Sequence[str], *, single: bool = False) -> StoredVectors:
        """In the order asked; ids without points are left out. ``single``: the episodes have one window each, so that
        no other need be looked for."""

    def pieces(self, episode_ids: Sequence[str]) -> dict[str, bytes]:
        """What was written as ``Point.pieces`` of each episode that has any."""

    def walk(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[tuple[str, int]], str | None]:
        """A page of (episode id, window) over all points and the cursor of the next page, None at the end."""

    def count(self, where: Where | None = None, *, exact: bool = True) -> int:
        """Points, centroids not counted. Not ``exact``: about so many, in a time that does not grow with them."""

    def put_centroids(self, centroids: Sequence[Centroid]) -> None: ...

    def centroids(self, session_id: str, attempt: str) -> list[Centroid]: ...

    def drop_centroids(self, session_id: str, *, keep: Sequence[str]) -> None: ...

    def walk_centroids(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[str], str | None]:
        """The attempt of each centroid of a page over all of them, and the cursor of the next page, None at the end."""

    def drop_attempts(self, attempts: Sequence[str]) -> None:
        """Remove the centroids of these attempts, whatever session they are of."""

    def scrub(self) -> None:
        """Rewrite what still holds traces of deleted points, so that nothing of them is left in the store's files.

        As dear as writing everything that lives once more: an erasure does not call it, the sweep does now and then
        (ww_core.maintenance.scrub). A server's own optimiser does this in its own time.
        """

    def info(self) -> Mapping[str, Any]:
        """Sizes and health for ``status``: backend, points, and what the store reports of itself."""
