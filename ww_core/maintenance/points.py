"""From an episode and its vectors to what the vector store keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ww_core.models import Episode, Vector, scalar_context
from ww_core.recall.context import LEXICAL_TERMS
from ww_core.stores.ports import BM25, BM25_CONTEXT, CONTENT, CONTEXT, Claim, Point, PointChange, SparseVector
from ww_core.stores.routing import cells_of


class Sparse(Protocol):
    """Texts as sparse vectors of term weights."""

    def document(self, text: str, *, average_length: float | None = None) -> SparseVector:
        """``average_length``: terms of the texts it is compared with, where they are not single episodes."""

    def documents(self, text: str, average_lengths: Sequence[float | None]) -> list[SparseVector]:
        """``document`` for each of the average lengths."""


def points(claim: Claim, rows: Vector, sparse: Sparse | None, pieces: bytes = b"") -> list[Point]:
    """One point for each window; ``rows`` is float32 (windows, d). The words of the whole text are on the first one,
    and so are its ``pieces``.

    Until its surroundings are known an episode is its own context: without any it would lose against episodes whose
    context is there already.
    """
    episode = claim.episode
    assert episode.timestamp is not None  # noqa: S101 - every stored episode has one
    context = scalar_context(episode.context)
    cells = cells_of(episode)
    words: dict[str, SparseVector] = {}
    if sparse is not None:
        alone, among = sparse.documents(episode.content, (None, LEXICAL_TERMS))
        words = {BM25: alone, BM25_CONTEXT: among}
    made = []
    for window, row in enumerate(rows):
        made.append(
            Point(
                episode_id=episode.episode_id,
                window=window,
                windows=len(rows),
                generation=claim.generation,
                session_id=episode.session_id,
                timestamp=episode.timestamp,
                dense={CONTENT: row, CONTEXT: row},
                sparse=words if window == 0 else {},
                outcome=episode.outcome,
                context=context,
                importance=episode.importance,
                cells=cells,
                archived=episode.archived,
                pieces=pieces if window == 0 else b"",
            )
        )
    return made


def payload(episode: Episode) -> PointChange:
    """What the record says of an embedded episode, as new payload of its points."""
    return PointChange(
        episode.episode_id,
        timestamp=episode.timestamp,
        outcome=episode.outcome,
        context=scalar_context(episode.context),
        importance=episode.importance,
        cells=cells_of(episode),
        archived=episode.archived,
    )
