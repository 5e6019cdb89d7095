"""The cells that lead to an episode's points, while what is visible changes: too many for a moment, never too few.

A point that a run moves gets its new cell beside the old one before the run becomes visible, and a new point stays
among those that no run has looked at; readers of either state find them, and check the membership in the graph. Which
cell is left over goes afterwards, and a fact in the graph remembers it until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from ww_core.stores.points import UNPLACED, digest
from ww_core.stores.ports import GraphStore, Membership, PointChange, VectorStore

WRITE = 5000
"""Points changed in one go: the vector store changes all points of one cell at once."""
LATEST = 50
"""Runs whose sessions a sweep looks at."""
ABANDONED_SECONDS = 300.0
"""After which nobody is believed to be writing cells any longer: the first run over a million takes a tenth of it."""


def cells_of(membership: Membership | None) -> tuple[str, ...]:
    """The cell that routes to an episode: its cluster, else the nearest one, else none."""
    return cells(membership.cluster_id or membership.nearest) if membership is not None else ()


def cells(cell: str | None) -> tuple[str, ...]:
    """The same from the cell."""
    return (cell,) if cell else ()


def both(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Cells of a point that readers of two states have to find."""
    return tuple(dict.fromkeys([*(one or (UNPLACED,)), *(other or (UNPLACED,))]))


class Cells:
    """Where points belong, by cell: told one by one, written cell by cell."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, ...], list[str]] = {}

    def put(self, episode_id: str, cells: tuple[str, ...]) -> None:
        self._of.setdefault(cells, []).append(episode_id)

    def write(self, vectors: VectorStore, still: Callable[[], bool] = lambda: True) -> None:
        """Write them, until ``still`` says that they are no longer what counts."""
        for found, ids in self._of.items():
            for part in _parts(ids):
                if not still():
                    return
                vectors.change([PointChange(episode_id, cells=found) for episode_id in part])


def note(graph: GraphStore, session_id: str, now: datetime) -> None:
    """Say that points of the session are about to have cells too many."""
    graph.put_fact(_key(session_id), now.isoformat())


def forget(graph: GraphStore, session_id: str) -> None:
    """Say that they have not, or that the session is gone."""
    graph.drop_fact(_key(session_id))


def settle(graph: GraphStore, vectors: VectorStore, session_id: str, *, noted_before: datetime | None = None) -> bool:
    """Finish what a crash left undone: the points that the visible run placed get the cells of that run.

    ``noted_before``: leave what was noted later, whose process may be at it. Whether there was anything to do.
    """
    noted = graph.get_fact(_key(session_id))
    if noted is None or (noted_before is not None and datetime.fromisoformat(noted) >= noted_before):
        return False
    run_id = graph.current_runs([session_id]).get(session_id)
    if run_id is not None:
        found = Cells()
        for moved in graph.moved(run_id):
            found.put(moved.episode_id, cells(moved.to))
        found.write(vectors)
    forget(graph, session_id)
    return True


def settle_abandoned(graph: GraphStore, vectors: VectorStore, now: datetime) -> int:
    """Do so for the sessions whose latest runs ended long ago; the next run of any other does it. How many it were."""
    sessions = dict.fromkeys(run.session_id for run in graph.runs(limit=LATEST))
    before = now - timedelta(seconds=ABANDONED_SECONDS)
    return sum(settle(graph, vectors, session_id, noted_before=before) for session_id in sessions)


def _parts(ids: list[str]) -> Iterator[Iterable[str]]:
    return (ids[start : start + WRITE] for start in range(0, len(ids), WRITE))


def _key(session_id: str) -> str:
    return f"consolidation.cells:{digest(session_id)}"
