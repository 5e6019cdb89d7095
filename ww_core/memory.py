"""What a memory can do, blocking: the one place where ingest, recall, consolidation and erasure meet."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import Any, Protocol

from ww_core.deployment import Deployment
from ww_core.errors import FlushTimeout, InvalidInput, NotFound
from ww_core.ingest import validate
from ww_core.models import (
    Cluster,
    ClusterRef,
    Counts,
    Episode,
    Erased,
    Recall,
    Receipt,
    Recollection,
    Run,
    SessionInfo,
    Verification,
    scalar_context,
)
from ww_core.recall.request import MAX_LIMIT, Mode, RecallRequest
from ww_core.sessions import must_exist
from ww_core.stores import pages
from ww_core.stores.ports import Where

PAGE = 500
"""Episodes or memberships read at a time."""
MAX_NEIGHBOURS = 100
MODES = ("auto", "flat", "hierarchical")


class Background(Protocol):
    """Whoever does the work that a call only asks for: Celery workers, or threads of this process."""

    @property
    def outage(self) -> str:
        """Why nothing could be embedded lately, in one line; empty where that is not known."""

    def start(self) -> None:
        """Make sure that somebody works; returns at once, and may be called again."""

    def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run:
        """Run one consolidation, waiting for it ``wait`` seconds at most (None: until it ends)."""

    def close(self) -> None:
        """Stop within a few seconds, handing back what is in flight."""


class MemoryCore:
    """A memory on one deployment. ``session_id`` is for calls that name none. Thread-safe."""

    def __init__(self, deployment: Deployment, background: Background, *, session_id: str | None = None) -> None:
        self.deployment = deployment
        self.background = background
        self.session_id = session_id

    # -- in

    def store(self, content: object, **fields: Any) -> Receipt:
        given = {key: value for key, value in fields.items() if value is not None}
        item = content
        if given:
            if isinstance(content, Episode | Mapping):
                raise InvalidInput(
                    f"{', '.join(given)} beside an {type(content).__name__}", hint="put the values into the item itself"
                )
            item = {"content": content, **given}
        return self.deployment.ingest.store(item, session_id=self.session_id)

    def store_chunk(self, items: Sequence[object], first: int) -> tuple[list[Receipt], list[tuple[int, Exception]]]:
        return self.deployment.ingest.chunk(items, first=first, session_id=self.session_id)

    # -- out

    def recall(
        self,
        query: object,
        *,
        session_id: str | Sequence[str] | None = None,
        limit: int = 10,
        offset: int = 0,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        outcome: str | Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        cluster: str | Sequence[str] | None = None,
        mode: Mode | None = None,
        archived: bool | None = False,
        mmr: float | None = None,
        explain: bool = False,
    ) -> Recall:
        if mode is not None and mode not in MODES:
            raise InvalidInput(
                f"mode {validate.shown(mode)} is unknown", hint=f"use one of {', '.join(MODES)}, or None"
            )
        if mmr is not None and not (isinstance(mmr, int | float) and 0 <= mmr <= 1):
            raise InvalidInput(f"mmr must be a number from 0 to 1, not {validate.shown(mmr)}")
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= 10_000:
            raise InvalidInput(f"offset must be a whole number from 0 to 10000, not {validate.shown(offset)}")
        cells = () if cluster is None else tuple(validate.identifier("cluster", c) for c in _several(cluster))
        request = RecallRequest(
            query=validate.content(query, "query"),
            where=replace(self._where(session_id, since, until, outcome, context, archived), cells=cells),
            limit=validate.limit(limit, most=MAX_LIMIT),
            offset=offset,
            mode=mode,
            explain=explain,
            mmr=mmr,
        )
        with self.deployment.metrics.operation("recall"):
            answer = self.deployment.recaller.recall(request)
        self._attend(answer)
        return answer

    def get(self, episode_id: str) -> Episode:
        validate.identifier("episode_id", episode_id)
        found = self.deployment.graph.get([episode_id]).get(episode_id)
        if found is None:
            raise _no_episode(episode_id)
        return found

    def pages(
        self,
        *,
        session_id: str | Sequence[str] | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
        outcome: str | Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        archived: bool | None = None,
        newest_first: bool = False,
    ) -> Iterator[list[Episode]]:
        """Pages of the episodes meant, in the order of (timestamp, position, id)."""
        where = self._where(session_id, since, until, outcome, context, archived)
        most = math.inf if limit is None else validate.limit(limit, most=2**53)
        return pages.episodes(self.deployment.graph, where, size=PAGE, most=most, newest_first=newest_first)

    def sessions(self) -> list[SessionInfo]:
        return self.deployment.graph.sessions()

    def neighbours(self, episode_id: str, *, before: int, after: int) -> list[Episode]:
        validate.identifier("episode_id", episode_id)
        for name, value in (("before", before), ("after", after)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_NEIGHBOURS:
                raise InvalidInput(
                    f"{name} must be a whole number from 0 to {MAX_NEIGHBOURS}, not {validate.shown(value)}"
                )
        found = self.deployment.graph.neighbours(episode_id, before=before, after=after)
        if not found:
            raise _no_episode(episode_id)
        return found

    def clusters(self, session_id: str | None = None) -> list[Cluster]:
        """Of every session's current run, or of one session's."""
        graph = self.deployment.graph
        session = self._session(session_id)
        names = sorted(graph.current_attempts([session] if session else []))
        runs = [run for name in names if (run := graph.current_run(name)) is not None]
        return [cluster for run in runs for cluster in run.clusters if cluster.change != "gone"]

    def about(self, cluster_id: str, *, limit: int) -> Recall:
        """The members of a cluster that say most of it: those nearest to its centroid, nearest first."""
        started = time.perf_counter()
        validate.identifier("cluster_id", cluster_id)
        limit = validate.limit(limit, most=MAX_LIMIT)
        cluster = next((one for one in self.clusters() if one.cluster_id == cluster_id), None)
        if cluster is None:
            raise NotFound(
                f"no cluster {validate.shown(cluster_id)}", hint="clusters() or `ww clusters` shows what there is"
            )
        members = pages.memberships(self.deployment.graph, cluster.session_id, cluster_id, size=PAGE)
        nearest = heapq.nsmallest(limit, chain.from_iterable(members), key=lambda m: (m.distance, m.episode_id))
        rows = self.deployment.graph.get([one.episode_id for one in nearest])
        results = tuple(
            Recollection(
                episode_id=row.episode_id,
                content=row.content,
                score=1 - one.distance,
                components={"cluster": 1 - one.distance},
                session_id=row.session_id,
                timestamp=row.timestamp or self.deployment.clock(),
                context=row.context,
                outcome=row.outcome,
                cluster=ClusterRef(cluster_id, cluster.label),
            )
            for one in nearest
            if (row := rows.get(one.episode_id)) is not None
        )
        took_ms = (time.perf_counter() - started) * 1000
        return Recall(query=cluster.label, mode="cluster", took_ms=took_ms, results=results)

    def runs(self, session_id: str | None = None, *, limit: int = 50) -> list[Run]:
        return self.deployment.graph.runs(self._session(session_id), limit=validate.limit(limit, most=1000))

    def in_mind(self, session_id: str | None = None) -> tuple[Episode, ...]:
        """The session's Working Memory, latest last, as the record has the episodes now."""
        session = validate.session(self._session(session_id))
        return self._current(self.deployment.buffers.working_memory.episodes(session))

    def recent(self, session_id: str | None = None, *, limit: int | None = None) -> tuple[Episode, ...]:
        """What this process stored last in the session, oldest first, as the record has the episodes now."""
        session = validate.session(self._session(session_id))
        most = self.deployment.buffers.episodes.size
        wanted = None if limit is None else validate.limit(limit, most=most)
        return self._current(self.deployment.buffers.episodes.latest(session, wanted))

    # -- change

    def update(self, episode_id: str, **fields: Any) -> Episode:
        return self.deployment.ingest.update(episode_id, **fields)

    def forget(self, episode_id: str | None = None, *, session_id: str | None = None) -> Erased:
        from ww_core.maintenance.breaker import CircuitBreaker
        from ww_core.maintenance.erase import erase
        from ww_core.maintenance.refresh import Refresh
        from ww_core.stores.ports import CONTEXT_NEIGHBOURS

        if (episode_id is None) == (session_id is None):
            raise InvalidInput(
                "forget takes one episode_id or one session_id",
                hint='forget("...") for an episode, forget(session_id="...") for a whole session',
            )
        parts = self.deployment
        ids = () if episode_id is None else (validate.identifier("episode_id", episode_id),)
        session = None if session_id is None else validate.identifier("session_id", session_id)
        rows = parts.graph.get(ids)
        if ids and not rows:
            raise _no_episode(ids[0])
        must_exist(parts.graph, session)
        beside = {other for around in parts.graph.around(ids, reach=CONTEXT_NEIGHBOURS).values() for other in around}
        try:
            erased = erase(parts.graph, parts.vectors, episode_ids=ids, session_id=session)
            refresh = Refresh(parts.graph, parts.vectors, parts.sparse, parts.metrics, breaker=CircuitBreaker())
            refresh.renew([other for other in beside if other is not None])
            return erased
        finally:  # also where the vectors cannot be reached: the record is erased by then
            contents = None if session is not None else [row.content for row in rows.values()]
            parts.forget(ids, session_id=session, contents=contents)
            parts.doorbell.ring()  # for the surroundings of its neighbours, where they could not be made anew

    # -- background work

    def mark(self) -> int:
        """What ``settled`` refers to: everything stored so far."""
        return self.deployment.graph.stored_mark()

    def settled(self, mark: int) -> bool:
        """Whether everything stored up to the mark is embedded, dead or erased; wakes whoever embeds where not."""
        if self.deployment.graph.settled(mark):
            return True
        self.deployment.doorbell.ring()
        return False

    def flush_timeout(self, timeout: float) -> FlushTimeout:
        counts, outage = self.counts(), self.background.outage
        return FlushTimeout(
            f"{counts.pending} pending and {counts.leased} leased episodes after {timeout:g} s",
            hint=outage or "wait longer; where Redis is used, see that a worker runs (ww worker)",
        )

    def consolidate(self, session_id: str, *, dry_run: bool, wait: float | None) -> Run:
        return self.background.consolidate(session_id, dry_run=dry_run, wait=wait)

    def rollback(self, run_id: str) -> Run:
        """Take the visible run of its session back."""
        return self.deployment.consolidator.rollback(validate.identifier("run_id", run_id))

    def cancel(self, run_id: str) -> Run:
        """End a run that has not ended: nothing of it becomes visible."""
        return self.deployment.graph.cancel_run(validate.identifier("run_id", run_id))

    def consolidated_sessions(self, session_id: str | None) -> list[str] | None:
        """The sessions that ``consolidate`` without a session means; None where it means one."""
        if self._session(session_id) is not None:
            return None
        return [info.session_id for info in self.sessions()]

    def one_session(self, session_id: str | None) -> str:
        return validate.session(self._session(session_id))

    # -- figures

    def counts(self, session_id: str | None = None) -> Counts:
        return self.deployment.graph.counts(self._session(session_id))

    def verify(self) -> Verification:
        from ww_core.maintenance.verify import verify

        return verify(self.deployment.graph, self.deployment.vectors)

    def repair(self) -> tuple[int, int]:
        """Let what has no points be embedded again, and remove points of nothing; how many episodes of each."""
        from ww_core.maintenance.sweep import repair

        found = repair(self.deployment.graph, self.deployment.vectors)
        if found[0]:
            self.deployment.doorbell.ring()
        return found

    # -- inside

    def _session(self, session_id: str | None) -> str | None:
        session = self.session_id if session_id is None else session_id
        return None if session is None else validate.identifier("session_id", session)

    def _where(
        self,
        session_id: str | Sequence[str] | None,
        since: datetime | str | None,
        until: datetime | str | None,
        outcome: str | Sequence[str] | None,
        context: Mapping[str, Any] | None,
        archived: bool | None,
    ) -> Where:
        session_id = self.session_id if session_id is None else session_id
        sessions = () if session_id is None else _several(session_id)
        wanted = {} if context is None else validate.context(context)
        scalars = scalar_context(wanted)
        for key in wanted:
            if key not in scalars:
                raise InvalidInput(
                    f"context filter {validate.shown(key)} is a list or an object",
                    hint="compare text, numbers or true/false",
                )
        start = None if since is None else validate.timestamp(since, "since")
        end = None if until is None else validate.timestamp(until, "until")
        if start is not None and end is not None and start >= end:
            raise InvalidInput(f"since {start.isoformat()} is not before until {end.isoformat()}", hint="swap them")
        outcomes = () if outcome is None else tuple(validate.outcome(o) or "" for o in _several(outcome))
        return Where(
            sessions=tuple(validate.identifier("session_id", s) for s in sessions),
            since=start,
            until=end,
            outcomes=outcomes,
            context=scalars,
            archived=archived,
        )

    def _attend(self, answer: Recall) -> None:
        best = answer.results[: self.deployment.buffers.working_memory.size]
        if self.deployment.settings.recall_strengthens:
            self.deployment.strengthener.note([r.episode_id for r in best])
        self.deployment.buffers.working_memory.attend(
            Episode(r.content, r.episode_id, r.session_id, r.timestamp, r.context, r.outcome) for r in reversed(best)
        )

    def _current(self, episodes: Sequence[Episode]) -> tuple[Episode, ...]:
        rows = self.deployment.graph.get([e.episode_id for e in episodes]) if episodes else {}
        gone = [e.episode_id for e in episodes if e.episode_id not in rows]
        if gone:  # forgotten by another process
            self.deployment.buffers.forget(gone)
        return tuple(rows[e.episode_id] for e in episodes if e.episode_id in rows)


def _several(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)


def _no_episode(episode_id: str) -> NotFound:
    return NotFound(f"no episode {validate.shown(episode_id)}", hint="list() or `ww list` shows what there is")
