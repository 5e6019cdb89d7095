"""Looking for work that nobody rang for, and for the traces of workers that died, a bounded part at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from ww_core.errors import ConfigurationError, Unavailable
from ww_core.maintenance.drain import never
from ww_core.maintenance.erase import STEP, finish, finish_session
from ww_core.maintenance.scrub import note, scrub_if_due
from ww_core.models import Episode, Run, State
from ww_core.stores.pages import to_place, to_text
from ww_core.stores.ports import Dirty, GraphStore, Place, VectorStore, Where, place_of
from ww_core.stores.routing import settle_abandoned

log = logging.getLogger(__name__)

T = TypeVar("T")

ROW_BUDGET = 2000
"""Rows and points compared in one pass, so that a pass costs the same at any size."""
PAGE = 1000
RUNS = 100
ROWS_CURSOR = "sweep.rows"
POINTS_CURSOR = "sweep.points"
CENTROIDS_CURSOR = "sweep.centroids"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one pass found. ``pending``, ``dirty`` and ``runs`` say for whom to ring."""

    freed: int = 0
    """Rows whose lease had run out."""
    tombstones: int = 0
    """Erased episodes whose vectors are gone now."""
    reopened: int = 0
    """Embedded rows whose points were missing."""
    orphans: int = 0
    """Episodes whose points had no row, or a dead one, and attempts at runs whose centroids outlived them."""
    scrubbed: bool = False
    """The last traces of erased points were removed from the vector store's files."""
    pending: bool = False
    dirty: bool = False
    runs: tuple[Run, ...] = ()
    outage: str = ""


def sweep(
    graph: GraphStore,
    vectors: VectorStore,
    *,
    max_attempts: int,
    rows: int = ROW_BUDGET,
    should_stop: Callable[[], bool] = never,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SweepReport:
    """One pass. Raises StoreUnavailable where the record cannot be read; vectors that cannot be reached wait."""
    freed = graph.expire_leases(max_attempts=max_attempts)
    runs = tuple(graph.requested_runs(RUNS))
    tombstones = reopened = orphans = 0
    scrubbed = False
    outage = ""
    try:
        tombstones = _finish_tombstones(graph, vectors, should_stop)
        if not should_stop():
            reopened = _rows_without_points(graph, vectors, rows)
        if not should_stop():
            orphans = _points_without_rows(graph, vectors, rows)
        if not should_stop():
            orphans += _centroids_without_attempts(graph, vectors, rows)
        if not should_stop():
            scrubbed = scrub_if_due(graph, vectors, now=clock())
        if not should_stop():
            settle_abandoned(graph, vectors, clock())
    except (Unavailable, ConfigurationError) as error:
        outage = f"{type(error).__name__}: {error}"
        log.warning("sweep of the vectors waits: %s", outage, extra={"action": "sweep.outage"})
    report = SweepReport(
        freed=freed,
        tombstones=tombstones,
        reopened=reopened,
        orphans=orphans,
        scrubbed=scrubbed,
        pending=graph.has_work(),
        dirty=any(graph.dirty(kind, 1) for kind in Dirty),
        runs=runs,
        outage=outage,
    )
    if freed or tombstones or reopened or orphans:
        log.info(
            "swept",
            extra={
                "action": "sweep",
                "freed": freed,
                "tombstones": tombstones,
                "reopened": reopened,
                "orphans": orphans,
            },
        )
    return report


def repair(graph: GraphStore, vectors: VectorStore) -> tuple[int, int]:
    """Compare everything at once, as after restoring a backup: embedded rows without their points are pending again,
    points without rows, and centroids without runs, are gone. How many of each. Raises StoreUnavailable."""
    # from the beginning, and beside the cursors: those belong to the sweeps, and one may run just now
    reopened = sum(_reopen_missing(graph, vectors, page) for page, _ in _row_pages(graph, None, sys.maxsize))
    orphans = sum(_remove_stray(graph, vectors, ids) for ids, _ in _point_pages(vectors, None, sys.maxsize))
    orphans += sum(
        _remove_attempts(graph, vectors, attempts) for attempts, _ in _centroid_pages(vectors, None, sys.maxsize)
    )
    return reopened, orphans


def _finish_tombstones(graph: GraphStore, vectors: VectorStore, should_stop: Callable[[], bool]) -> int:
    done = 0
    while not should_stop() and (ids := graph.unfinished_tombstones(STEP)):
        finish(graph, vectors, ids)
        done += len(ids)
    # behind their episodes: a session whose erasure was cut off halfway is not among them
    while not should_stop() and (sessions := graph.unfinished_sessions(STEP)):
        for session_id in sessions:
            finish_session(graph, vectors, session_id)
    return done


def _rows_without_points(graph: GraphStore, vectors: VectorStore, budget: int) -> int:
    """From where the last pass stopped, round and round."""
    reopened = 0
    for page, after in _row_pages(graph, to_place(graph.get_fact(ROWS_CURSOR)), budget):
        reopened += _reopen_missing(graph, vectors, page)
        graph.put_fact(ROWS_CURSOR, to_text(after))
    return reopened


def _reopen_missing(graph: GraphStore, vectors: VectorStore, page: list[Episode]) -> int:
    found = vectors.generations([episode.episode_id for episode in page]) if page else {}
    missing = [episode.episode_id for episode in page if not complete(episode, found)]
    return graph.reopen(missing) if missing else 0


def complete(episode: Episode, found: dict[str, tuple[int, int]]) -> bool:
    """Whether the points found (generation and number by id) are those of this embedded episode."""
    generation, number = found.get(episode.episode_id, (0, 0))
    return number == episode.windows and generation >= episode.generation


def _row_pages(graph: GraphStore, after: Place | None, budget: int) -> Iterator[tuple[list[Episode], Place | None]]:
    """Embedded rows behind the cursor, each page with the next one's cursor, None at the end."""
    while budget > 0:
        size = min(PAGE, budget)
        page = graph.page(Where(archived=None), after=after, limit=size, states=(State.EMBEDDED,))
        after = place_of(page[-1]) if len(page) == size else None
        yield page, after
        if after is None:
            return
        budget -= len(page)


def _points_without_rows(graph: GraphStore, vectors: VectorStore, budget: int) -> int:
    """From where the last pass stopped, round and round."""
    orphans = 0
    for ids, after in _point_pages(vectors, graph.get_fact(POINTS_CURSOR) or None, budget):
        orphans += _remove_stray(graph, vectors, ids)
        graph.put_fact(POINTS_CURSOR, after or "")
    return orphans


def _centroids_without_attempts(graph: GraphStore, vectors: VectorStore, budget: int) -> int:
    """From where the last pass stopped, round and round: of a session that was erased while its run was published, and
    of attempts that came too late."""
    orphans = 0
    for attempts, after in _centroid_pages(vectors, graph.get_fact(CENTROIDS_CURSOR) or None, budget):
        orphans += _remove_attempts(graph, vectors, attempts)
        graph.put_fact(CENTROIDS_CURSOR, after or "")
    return orphans


def _centroid_pages(vectors: VectorStore, after: str | None, budget: int) -> Iterator[tuple[list[str], str | None]]:
    """Attempts whose centroids are behind the cursor, each page with the next one's cursor, None at the end."""
    walked = _walked(lambda after, limit: vectors.walk_centroids(after=after, limit=limit), after, budget)
    return ((sorted(set(page)), after) for page, after in walked)


def _remove_attempts(graph: GraphStore, vectors: VectorStore, attempts: list[str]) -> int:
    gone = sorted(set(attempts) - graph.live_attempts(attempts)) if attempts else []
    if gone:
        vectors.drop_attempts(gone)
        note(graph)
    return len(gone)


def _point_pages(vectors: VectorStore, after: str | None, budget: int) -> Iterator[tuple[list[str], str | None]]:
    """Ids of the episodes of the points behind the cursor, each page with the next one's cursor, None at the end."""
    walked = _walked(lambda after, limit: vectors.walk(after=after, limit=limit), after, budget)
    return ((sorted({episode_id for episode_id, _ in page}), after) for page, after in walked)


def _walked(
    walk: Callable[[str | None, int], tuple[list[T], str | None]], after: str | None, budget: int
) -> Iterator[tuple[list[T], str | None]]:
    while budget > 0:
        page, after = walk(after, min(PAGE, budget))
        after = after if page else None
        yield page, after
        if after is None:
            return
        budget -= len(page)


def _remove_stray(graph: GraphStore, vectors: VectorStore, ids: list[str]) -> int:
    rows = graph.get(ids) if ids else {}
    stray = [name for name in ids if (row := rows.get(name)) is None or row.state is State.DEAD]
    if stray:
        vectors.delete(stray)
        note(graph)
        _reopen_incomplete(graph, vectors, stray)
    return len(stray)


def _reopen_incomplete(graph: GraphStore, vectors: VectorStore, ids: list[str]) -> None:
    """Let rows be embedded again that were replayed while their old points were removed: the new ones went too."""
    embedded = [row for row in graph.get(ids).values() if row.state is State.EMBEDDED]
    if embedded:
        found = vectors.generations([row.episode_id for row in embedded])
        graph.reopen([row.episode_id for row in embedded if not complete(row, found)])
