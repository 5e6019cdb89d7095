"""The complete comparison of record and vectors, page by page, while work goes on."""

from __future__ import annotations

from collections.abc import Callable

from ww_core.maintenance.drain import never
from ww_core.maintenance.sweep import complete
from ww_core.models import Check, Counts, Episode, State, Verification
from ww_core.stores.pages import episodes
from ww_core.stores.ports import GraphStore, VectorStore, Where

PAGE = 1000
EXAMPLES = 5


def verify(graph: GraphStore, vectors: VectorStore, *, should_stop: Callable[[], bool] = never) -> Verification:
    """Compare everything, in bounded memory. What looks wrong is looked at again: it may have been in motion.

    ``should_stop`` ends it early; the answer is then that of what was compared. Raises StoreUnavailable.
    """
    counts = graph.counts()
    checks = (
        _accounting(counts),
        _points_of_embedded(graph, vectors, should_stop),
        _points_of_nobody(graph, vectors, should_stop),
        _tombstones(graph, vectors),
    )
    return Verification(ok=all(check.ok for check in checks), checks=checks)


def _accounting(counts: Counts) -> Check:
    found = counts.pending + counts.leased + counts.embedded + counts.dead + counts.erased
    return Check("accounting", counts.balanced, expected=counts.acknowledged, found=found)


def _points_of_embedded(graph: GraphStore, vectors: VectorStore, should_stop: Callable[[], bool]) -> Check:
    """Every embedded episode has exactly its points, of its latest generation."""
    expected = found = 0
    wrong: list[str] = []
    for page in episodes(graph, Where(archived=None), size=PAGE, states=(State.EMBEDDED,)):
        if should_stop():
            break
        suspects = _incomplete(vectors, page)
        if suspects:
            rows = graph.get([episode.episode_id for episode in suspects])
            again = [row for row in rows.values() if row.state is State.EMBEDDED]
            wrong += [episode.episode_id for episode in _incomplete(vectors, again)]
        expected += len(page)
    found = expected - len(wrong)
    return Check("embedded episodes have their points", not wrong, expected, found, tuple(wrong[:EXAMPLES]))


def _incomplete(vectors: VectorStore, page: list[Episode]) -> list[Episode]:
    found = vectors.generations([episode.episode_id for episode in page])
    return [episode for episode in page if not complete(episode, found)]


def _points_of_nobody(graph: GraphStore, vectors: VectorStore, should_stop: Callable[[], bool]) -> Check:
    """No point belongs to an episode that does not exist, was erased or is dead, and none is beyond its windows. What a
    corrected episode that waits said before stays until its new points replace it."""
    expected = 0
    wrong: list[str] = []
    after: str | None = None
    while not should_stop():
        page, after = vectors.walk(after=after, limit=PAGE)
        suspects = _strays(graph, page)
        if suspects:
            there = vectors.generations([episode_id for episode_id, _ in suspects])
            wrong += [episode_id for episode_id, _ in _strays(graph, [p for p in suspects if p[0] in there])]
        expected += len(page)
        if after is None:
            break
    return Check("points belong to episodes", not wrong, expected, expected - len(wrong), tuple(wrong[:EXAMPLES]))


def _strays(graph: GraphStore, page: list[tuple[str, int]]) -> list[tuple[str, int]]:
    rows = graph.get(sorted({episode_id for episode_id, _ in page})) if page else {}
    return [
        (episode_id, window)
        for episode_id, window in page
        if (row := rows.get(episode_id)) is None
        or row.state is State.DEAD
        or (row.state is State.EMBEDDED and window >= row.windows)
    ]


def _tombstones(graph: GraphStore, vectors: VectorStore) -> Check:
    """Nothing erased has vectors left."""
    ids = graph.unfinished_tombstones(PAGE)
    left = sorted(vectors.generations(ids)) if ids else []
    return Check("erased episodes have no points", not left, 0, len(left), tuple(left[:EXAMPLES]))
