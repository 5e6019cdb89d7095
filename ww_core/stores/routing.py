"""The cells that lead to an episode's points, while what is visible changes: too many for a moment, never too few.

A point that a run moves gets its new cell beside the old one before the run becomes visible, and a new point stays
among those that no run has looked at; readers of either state find them, and check the membership in the graph. Which
cell is left over goes afterwards, under the session's lease, and a fact in the graph remembers it until it is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from uuid import uuid4

from ww_core.errors import NotFound
from ww_core.models import Episode, of_attempt
from ww_core.stores.holding import Hold
from ww_core.stores.points import UNPLACED, digest
from ww_core.stores.ports import GraphStore, Membership, VectorStore

WRITE = 2500
"""Points changed in one go: the vector store changes all points of one cell at once, and keeps the process's other
threads waiting for about 80 ms meanwhile."""
LEASE_SECONDS = 120.0
"""Of a session that is worked on: longer than any single step takes, short enough that a crash is soon over."""
ABANDONED_SECONDS = 300.0
"""After which nobody is believed to be writing cells any longer: the first run over a million takes a tenth of it."""
NOTES = 100
"""Of cells left over that a sweep looks at."""
_PREFIX = "consolidation.cells:"


def cells_of(placed: Episode | Membership | None) -> tuple[str, ...]:
    """The cell that routes to an episode: its cluster, else the nearest one, else none."""
    return cells(placed.cluster_id or placed.nearest) if placed is not None else ()


def cells(cell: str | None) -> tuple[str, ...]:
    """The same from the cell."""
    return (cell,) if cell else ()


def both(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    """Cells of a point that readers of two states have to find."""
    return tuple(dict.fromkeys([*(one or (UNPLACED,)), *(other or (UNPLACED,))]))


def hold(graph: GraphStore, run_id: str, token: str) -> Hold:
    """The session of the visible run, kept to oneself for as long as one asks; ``GraphStore.release_run`` ends it."""
    return Hold(lambda: graph.hold_run(run_id, token=token, lease_seconds=LEASE_SECONDS))


class Cells:
    """Where points belong, by cell: told one by one, written cell by cell."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, ...], list[str]] = {}

    def put(self, episode_id: str, cells: tuple[str, ...]) -> None:
        self._of.setdefault(cells, []).append(episode_id)

    def write(self, graph: GraphStore, vectors: VectorStore, held: Callable[[], bool]) -> bool:
        """Write them for as long as the session is ``held``; whether it was to the end.

        Where it turns out to be lost only after a part was written, somebody else's cells may have been overwritten:
        the payload of that part is dirty then, and gets what the record says.
        """
        for found, ids in self._of.items():
            for part in _parts(ids):
                if not held():
                    return False
                vectors.set_cells(part, found)
                if not held():
                    graph.mark_payload(part)
                    return False
        return True


def note(graph: GraphStore, session_id: str, attempt: str, now: datetime) -> None:
    """Say that points of the session are about to have cells too many: for the sake of this attempt at a run."""
    graph.put_fact(f"{_of(session_id)}{attempt}", now.isoformat())


def forget(graph: GraphStore, session_id: str, attempt: str) -> None:
    """Say that they have not."""
    graph.drop_fact(f"{_of(session_id)}{attempt}")


def forget_session(graph: GraphStore, session_id: str) -> None:
    """Forget all that was noted of a session that is gone."""
    while noted := graph.facts(_of(session_id)):
        for key in noted:
            graph.drop_fact(key)


def settle(graph: GraphStore, vectors: VectorStore, session_id: str, held: Callable[[], bool]) -> bool:
    """Finish what a crash left undone, while the session is ``held``: the points that the visible run placed get the
    cells of that run. Whether there was anything to do.
    """
    noted = graph.facts(_of(session_id))
    if not noted:
        return False
    attempt = graph.current_attempts([session_id]).get(session_id)
    if attempt is not None:
        found = Cells()
        for moved in graph.moved(of_attempt(attempt)[0]):
            found.put(moved.episode_id, cells(moved.to))
        if not found.write(graph, vectors, held):
            return False
    for key in noted:
        graph.drop_fact(key)
    return True


def settle_abandoned(graph: GraphStore, vectors: VectorStore, now: datetime) -> int:
    """Do so for the sessions that it was noted of long ago, and that nobody holds; how many it were."""
    before = now - timedelta(seconds=ABANDONED_SECONDS)
    settled = 0
    for key, noted in graph.facts(_PREFIX, limit=NOTES).items():
        if datetime.fromisoformat(noted) < before:
            settled += _settle_noted(graph, vectors, key)
    return settled


def _settle_noted(graph: GraphStore, vectors: VectorStore, key: str) -> bool:
    try:
        session_id = graph.run(of_attempt(key.rpartition(":")[2])[0]).session_id
    except NotFound:  # erased, and noted once more by a worker that did not know
        graph.drop_fact(key)
        return False
    attempt = graph.current_attempts([session_id]).get(session_id)
    if attempt is None:
        graph.drop_fact(key)  # nothing is visible, so nothing routes
        return False
    run_id, token = of_attempt(attempt)[0], uuid4().hex
    held = hold(graph, run_id, token)
    if not held():
        return False
    try:
        return settle(graph, vectors, session_id, held)
    finally:
        graph.release_run(run_id, token=token)


def _parts(ids: list[str]) -> Iterator[list[str]]:
    return (ids[start : start + WRITE] for start in range(0, len(ids), WRITE))


def _of(session_id: str) -> str:
    return f"{_PREFIX}{digest(session_id)}:"
