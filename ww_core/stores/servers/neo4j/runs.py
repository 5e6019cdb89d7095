"""The life of a run: requested, running under a lease, ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from neo4j import Record, Transaction

from ww_core.errors import Busy, NotFound
from ww_core.models import Run, attempt, of_attempt
from ww_core.stores.servers.neo4j import labels
from ww_core.stores.servers.neo4j.leftovers import clear_leftovers
from ww_core.stores.servers.neo4j.rows import NOW, Part, usable, value
from ww_core.stores.values import to_duration_us, to_time, to_time_or_none

LOCK_SESSION = """MATCH (s:Session {ns: $ns, id: $session}) SET s.lock = true
RETURN s.current AS current, s.last_version AS last, s.oldest_version AS oldest"""
"""Whoever changes a session's runs holds this lock first; nobody who stores does."""

_ABANDONED = "r.status = 'running' AND r.expires_at <= coalesce($now, datetime.realtime().epochMillis * 1000)"
_AS_READ = f"r {{.*, status: CASE WHEN {_ABANDONED} THEN 'requested' ELSE r.status END}}"
"""The properties of a run for whoever reads it: under a lease that has run out it waits to be taken over."""

GET_RUN = f"MATCH (r:Run {{ns: $ns, id: $run}}) RETURN {_AS_READ}"
_OPEN = f"""MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0
  AND (r.status = 'requested' OR {_ABANDONED})
RETURN {_AS_READ} ORDER BY r.ordinal LIMIT 1"""
_OF_WINDOW = f"MATCH (r:Run {{ns: $ns, session: $session, window: $window}}) RETURN {_AS_READ}"
_REQUEST = f"""{NOW}
MATCH (s:Session {{ns: $ns, id: $session}})
WITH s, clock, now, coalesce(COLLECT {{ MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0
  RETURN max(r.seq) }}[0], 0) AS last
CREATE (r:Run {{ns: $ns, id: $run, session: $session, seq: last + 1, status: 'requested', open: 'requested',
  window: $window, ordinal: clock, requested_at: now}})-[:OF]->(s)
RETURN properties(r)"""
_REQUESTED = f"""{NOW}
MATCH (r:Run) WHERE r.ns = $ns AND r.open IN ['requested', 'running']
WITH r, now WHERE r.status = 'requested' OR r.expires_at <= now
RETURN r {{.*, status: 'requested'}} ORDER BY r.ordinal LIMIT $limit"""
_ALIVE = f"""{NOW}
MATCH (r:Run) WHERE r.ns = $ns AND r.open = 'running'
WITH r, now WHERE r.status = 'running' AND r.expires_at > now
RETURN properties(r) ORDER BY r.started_at, r.ordinal"""
_RETURN = """MATCH (r:Run {ns: $ns, id: $run}) SET r.lock = true
WITH r WHERE r.token = $token AND r.status = 'running'
SET r.status = 'requested', r.open = 'requested', r.token = null, r.expires_at = null, r.progress = 0.0
RETURN r.session, r.version"""
_CANCEL = f"""{NOW}
MATCH (r:Run {{ns: $ns, id: $run}})
SET r.status = 'cancelled', r.open = null, r.token = null, r.expires_at = null, r.finished_at = now
RETURN properties(r)"""
HELD = """MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0 AND r.token IS NOT NULL
RETURN r.id, r.expires_at, r.token"""
"""By a run that is under way, or by whoever tidies up behind the visible one."""
VOID = """MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0 AND r.status = 'running'
SET r.status = 'requested', r.open = 'requested', r.token = null"""
_VOID_TIDYING = """MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0 AND r.token IS NOT NULL
SET r.token = null, r.expires_at = null, r.open = null"""
HOLD = """MATCH (r:Run {ns: $ns, id: $run})
SET r.token = $token, r.expires_at = $expires_at, r.holder = $holder, r.open = 'held'"""
"""To tidy up behind a run that has ended. ``open`` is indexed: it finds all that are under a lease."""
_RELEASE = """MATCH (r:Run {ns: $ns, id: $run}) SET r.lock = true
WITH r WHERE r.token = $token AND r.status <> 'running'
SET r.token = null, r.expires_at = null, r.open = null"""
_LIVE_ATTEMPTS = """UNWIND $runs AS id MATCH (r:Run {ns: $ns, id: id})
WHERE r.status = 'running' OR (r.status = 'done' AND r.base IS NOT NULL) RETURN r.id, r.version"""
_START = """MATCH (s:Session {ns: $ns, id: $session}) MATCH (r:Run {ns: $ns, id: $run})
SET s.last_version = s.last_version + 1, s.leftovers = true
SET r.status = 'running', r.open = 'running', r.token = $token, r.expires_at = $expires_at, r.version = s.last_version,
  r.started_at = $now, r.progress = 0.0, r.holder = $holder
RETURN properties(r)"""
_EXTEND = f"""{NOW}
MATCH (r:Run {{ns: $ns, id: $run}}) SET r.lock = true
WITH r, now WHERE r.token = $token AND r.status = 'running'
SET r.expires_at = now + $duration, r.progress = $progress RETURN r.id"""
_END = f"""{NOW}
MATCH (r:Run {{ns: $ns, id: $run}}) SET r.lock = true
WITH r, now WHERE r.token = $token AND r.status = 'running'
SET r.open = null, r.token = null, r.expires_at = null, r.finished_at = now, r.progress = 1.0, r += $figures
RETURN r.session, r.version"""
_CURRENT = """MATCH (s:Session {ns: $ns, id: $session}) WHERE s.current > 0
MATCH (r:Run {ns: $ns, session: $session, version: s.current}) RETURN properties(r)"""
_POINTERS = """{source} MATCH (s:Session) WHERE s.ns = $ns AND s.id {of} AND s.current > 0
MATCH (r:Run {{ns: $ns, session: s.id, version: s.current}}) RETURN s.id, r.id, r.version"""
_LIST = f"""MATCH (r:Run) WHERE r.ns = $ns AND r.ordinal > 0
RETURN {_AS_READ} ORDER BY r.ns DESC, r.ordinal DESC LIMIT $limit"""
_LIST_OF_SESSION = f"""MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0
RETURN {_AS_READ} ORDER BY r.ns DESC, r.session DESC, r.seq DESC LIMIT $limit"""


class Runs(Part):
    """Runs as work to be done, and as records."""

    def request_run(self, session_id: str, *, window: str | None = None) -> Run:
        """See GraphStore."""

        def work(tx: Transaction) -> Run:
            known = usable([session_id]) and tx.run(LOCK_SESSION, ns=self._ns, session=session_id).single()
            if not known:
                raise NotFound(f"no session {session_id!r}", hint="nothing was stored in it")
            asked: dict[str, Any] = {"ns": self._ns, "session": session_id, "window": window, "now": self._given()}
            found = value(tx, _OPEN if window is None else _OF_WINDOW, **asked)
            return to_run(found or value(tx, _REQUEST, **asked, run=uuid4().hex))

        return self._server.write(work, again=True)

    def requested_runs(self, limit: int) -> list[Run]:
        """See GraphStore. Oldest first."""
        rows = self._server.read(lambda tx: list(tx.run(_REQUESTED, ns=self._ns, limit=limit, now=self._given())))
        return [to_run(row[0]) for row in rows]

    def start_run(self, run_id: str, *, token: str, lease_seconds: float) -> Run:
        """See GraphStore. What an earlier run of the session left behind is cleared away before this returns."""

        def work(tx: Transaction) -> tuple[Run, int]:
            session = get_run(tx, self._ns, run_id, self._given())["session"]
            tx.run(LOCK_SESSION, ns=self._ns, session=session).consume()
            now = self._now(tx)
            run = get_run(tx, self._ns, run_id, self._given())
            for other, expires_at, _ in tx.run(HELD, ns=self._ns, session=session):
                if expires_at > now:
                    raise Busy(
                        f"session {session!r} is being consolidated by run {other}", hint="try again when it ends"
                    )
            if run["status"] not in ("requested", "running"):
                raise Busy(f"run {run_id} is {run['status']} already", hint="request another one")
            # whoever held the session before may still be alive: its token is void from here on
            tx.run(VOID, ns=self._ns, session=session).consume()
            tx.run(_VOID_TIDYING, ns=self._ns, session=session).consume()
            lease = {"token": token, "expires_at": now + to_duration_us(lease_seconds), "now": now}
            holder = self._server.holders.mine()
            started = value(tx, _START, ns=self._ns, session=session, run=run_id, holder=holder, **lease)
            return to_run(started), started["version"]

        run, version = self._server.write(work)
        clear_leftovers(self._server, self._ns, run.session_id, upto=version)
        return run

    def extend_run(self, run_id: str, *, token: str, lease_seconds: float, progress: float) -> bool:
        """See GraphStore."""
        lease = {"token": token, "duration": to_duration_us(lease_seconds), "progress": float(progress)}

        def work(tx: Transaction) -> bool:
            return value(tx, _EXTEND, ns=self._ns, run=run_id, now=self._given(), **lease) is not None

        return self._server.write(work, again=True)

    def hold_run(self, run_id: str, *, token: str, lease_seconds: float) -> bool:
        """See GraphStore."""

        def work(tx: Transaction) -> bool:
            found = value(tx, GET_RUN, ns=self._ns, run=run_id, now=self._given())
            if found is None:
                return False
            pointer = tx.run(LOCK_SESSION, ns=self._ns, session=found["session"]).single()
            run = value(tx, GET_RUN, ns=self._ns, run=run_id, now=self._given())
            if pointer is None or run is None or run["status"] not in ("done", "rolled_back"):
                return False
            now = self._now(tx)
            if run.get("token") != token:
                held = [row[1] > now for row in tx.run(HELD, ns=self._ns, session=run["session"])]
                if any(held) or run.get("version", 0) != pointer["current"]:
                    return False
            expires_at = now + to_duration_us(lease_seconds)
            tx.run(VOID, ns=self._ns, session=run["session"]).consume()
            holder = self._server.holders.mine()
            tx.run(HOLD, ns=self._ns, run=run_id, token=token, expires_at=expires_at, holder=holder).consume()
            return True

        return self._server.write(work, again=True)

    def release_run(self, run_id: str, *, token: str) -> None:
        """See GraphStore."""
        self._server.write(lambda tx: tx.run(_RELEASE, ns=self._ns, run=run_id, token=token).consume(), again=True)

    def finish_run(self, run: Run, *, token: str) -> bool:
        """See GraphStore. What it staged is cleared away."""
        ended = self._server.write(lambda tx: record_end(tx, self._ns, run, token, self._given()))
        if ended is None:
            return False
        session, version = ended
        clear_leftovers(self._server, self._ns, session, upto=version + 1)
        return True

    def return_run(self, run_id: str, *, token: str) -> bool:
        """See GraphStore."""

        def work(tx: Transaction) -> Record | None:
            return tx.run(_RETURN, ns=self._ns, run=run_id, token=token).single()

        returned = self._server.write(work)
        if returned is None:
            return False
        session, version = returned
        clear_leftovers(self._server, self._ns, session, upto=version + 1)
        return True

    def cancel_run(self, run_id: str) -> Run:
        """See GraphStore."""

        def work(tx: Transaction) -> dict[str, Any]:
            session = get_run(tx, self._ns, run_id, self._given())["session"]
            tx.run(LOCK_SESSION, ns=self._ns, session=session).consume()
            run = get_run(tx, self._ns, run_id, self._given())
            if run["status"] not in ("requested", "running"):
                raise Busy(f"run {run_id} is {run['status']} already", hint="ww rollback takes a visible run back")
            cancelled: dict[str, Any] = value(tx, _CANCEL, ns=self._ns, run=run_id, now=self._given())
            return cancelled

        run = self._server.write(work)
        clear_leftovers(self._server, self._ns, run["session"], upto=run.get("version", 0) + 1)
        return to_run(run)

    def running_runs(self) -> list[Run]:
        """See GraphStore."""
        rows = self._server.read(lambda tx: list(tx.run(_ALIVE, ns=self._ns, now=self._given())))
        return [to_run(row[0]) for row in rows]

    def run(self, run_id: str) -> Run:
        """See GraphStore. With its clusters where it was published and is kept. Raises NotFound."""
        return self._server.read(lambda tx: self._with_clusters(tx, get_run(tx, self._ns, run_id, self._given())))

    def current_run(self, session_id: str) -> Run | None:
        """See GraphStore."""

        def work(tx: Transaction) -> Run | None:
            found = value(tx, _CURRENT, ns=self._ns, session=session_id)
            return None if found is None else self._with_clusters(tx, found)

        return self._server.read(work)

    def current_attempts(self, session_ids: Sequence[str] = ()) -> dict[str, str]:
        """See GraphStore."""
        query = _POINTERS.format(source="UNWIND $sessions AS name", of="= name")
        if not session_ids:
            query = _POINTERS.format(source="", of=">= ''")
        names = usable(session_ids)
        rows = self._server.read(lambda tx: list(tx.run(query, ns=self._ns, sessions=names)))
        return {session: attempt(run, version) for session, run, version in rows}

    def live_attempts(self, attempts: Sequence[str]) -> set[str]:
        """See GraphStore. Asked as if it were a write: the leader answers those, and a follower may lag behind it."""
        runs = sorted({of_attempt(name)[0] for name in attempts})
        rows = self._server.write(lambda tx: list(tx.run(_LIVE_ATTEMPTS, ns=self._ns, runs=usable(runs))), again=True)
        return {attempt(run, version) for run, version in rows} & set(attempts)

    def runs(self, session_id: str | None = None, *, limit: int = 50) -> list[Run]:
        """See GraphStore."""
        query = _LIST if session_id is None else _LIST_OF_SESSION
        asked = {"ns": self._ns, "session": session_id, "limit": limit, "now": self._given()}
        rows = self._server.read(lambda tx: list(tx.run(query, asked)))
        return [to_run(row[0]) for row in rows]

    def _with_clusters(self, tx: Transaction, row: Mapping[str, Any]) -> Run:
        version = row.get("version", 0)
        return to_run(row, labels.read_clusters(tx, self._ns, row["session"], version) if version else ())


def get_run(tx: Transaction, ns: str, run_id: str, given: int | None) -> Mapping[str, Any]:
    """The properties of a run, as it is read. Raises NotFound."""
    found: Mapping[str, Any] | None = value(tx, GET_RUN, ns=ns, run=run_id, now=given) if usable([run_id]) else None
    if found is None:
        raise NotFound(f"no run {run_id!r}", hint="ww runs lists them")
    return found


def record_end(tx: Transaction, ns: str, run: Run, token: str, given: int | None) -> tuple[str, int] | None:
    """Write down how a run ended, where ``token`` still holds it; status ``done`` where the caller left it running.

    Its session and version, None where the token is void.
    """
    figures = {
        "status": "done" if run.status in ("requested", "running") else run.status,
        "considered": run.considered,
        "sampled": run.sampled,
        "assigned": run.assigned,
        "noise": run.noise,
        "folded": run.folded,
        "seconds": float(run.seconds),
        "error": run.error,
    }
    row = tx.run(_END, ns=ns, run=run.run_id, token=token, figures=figures, now=given).single()
    return None if row is None else (row[0], row[1])


def to_run(row: Mapping[str, Any], clusters: tuple[Any, ...] = ()) -> Run:
    """A run from the properties of its node."""
    return Run(
        run_id=row["id"],
        session_id=row["session"],
        status=row["status"],
        seq=row["seq"],
        window=row.get("window"),
        requested_at=to_time(row["requested_at"]),
        started_at=to_time_or_none(row.get("started_at")),
        finished_at=to_time_or_none(row.get("finished_at")),
        considered=row.get("considered", 0),
        sampled=row.get("sampled", 0),
        assigned=row.get("assigned", 0),
        noise=row.get("noise", 0),
        folded=row.get("folded", 0),
        seconds=row.get("seconds", 0.0),
        error=row.get("error"),
        progress=row.get("progress", 0.0),
        attempt=attempt(row["id"], row.get("version", 0)),
        clusters=clusters,
    )
