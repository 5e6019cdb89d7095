"""From an episode and its vectors to what the vector store keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from ww_core.models import Episode, Vector, scalar_context
from ww_core.recall.context import LEXICAL_TERMS
from ww_core.stores.ports import BM25, BM25_CONTEXT, CONTENT, CONTEXT, Claim, Point, PointChange, SparseVector
from ww_core.stores.routing import cells_of


class Sparse(Protocol):
    """Texts as sparse vectors of term weights."""

    def documents(self, texts: Sequence[str], average_lengths: Sequence[float | None]) -> list[list[SparseVector]]:
        """For each text a vector for each of the average lengths: terms of the texts that it is compared with, None
        where those are single episodes."""


Words: TypeAlias = Mapping[str, SparseVector]
"""The sparse vectors of a text, by name."""


def words(texts: Sequence[str], sparse: Sparse | None) -> list[Words]:
    """Of each text, which is its own context until its surroundings are known; none without an encoder."""
    if sparse is None:
        return [{} for _ in texts]
    return [{BM25: alone, BM25_CONTEXT: among} for alone, among in sparse.documents(texts, (None, LEXICAL_TERMS))]


def points(claim: Claim, rows: Vector, words: Words, pieces: bytes = b"") -> list[Point]:
    """One point for each window; ``rows`` is float32 (windows, d). The ``words`` and ``pieces`` of the whole text are
    on the first one.
    """
    episode = claim.episode
    assert episode.timestamp is not None  # noqa: S101 - every stored episode has one
    context = scalar_context(episode.context)
    cells = cells_of(episode)
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
                dense={CONTENT: row, CONTEXT: row},  # without a context it would lose against those that have one
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
