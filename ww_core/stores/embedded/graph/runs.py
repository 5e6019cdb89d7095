"""The life of a run: requested, running under a lease, ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from ww_core.errors import Busy, NotFound
from ww_core.models import Run, attempt, of_attempt
from ww_core.stores.embedded.graph import labels
from ww_core.stores.embedded.graph.leftovers import clear_leftovers
from ww_core.stores.embedded.graph.rows import Part, as_list, session_key
from ww_core.stores.values import to_duration_us, to_time, to_time_or_none

RUN_COLUMNS = """SELECT r.run_id, t.session_id, r.status, r.seq, r.time_window, r.requested_at, r.started_at,
  r.finished_at, r.considered, r.sampled, r.assigned, r.noise, r.folded, r.seconds, r.error, r.progress,
  r.session, r.version, r.token, r.expires_at FROM run r JOIN session t ON t.session = r.session """
"""A SELECT for ``to_run``, to be narrowed; behind the fields of a Run come session, version, token and expiry."""

HELD = "SELECT run_id FROM run WHERE session = ? AND token IS NOT NULL AND token IS NOT ? AND expires_at > ?"
"""By another token: that of a run that is under way, or by whoever tidies up behind the visible one."""
VOID = "UPDATE run SET status = 'requested', token = NULL WHERE session = ? AND status = 'running'"
_VOID_TIDYING = "UPDATE run SET token = NULL, expires_at = 0 WHERE session = ? AND token IS NOT NULL"
_HOLD = """UPDATE run SET token = ?2, expires_at = ?4, holder = ?5 WHERE run_id = ?1
  AND status IN ('done', 'rolled_back') AND (token = ?2 OR (
    version = (SELECT current FROM session s WHERE s.session = run.session) AND NOT EXISTS (
      SELECT 1 FROM run o WHERE o.session = run.session AND o.token IS NOT NULL AND o.expires_at > ?3)))
  RETURNING session"""
_ABANDONED = "r.status = 'running' AND r.expires_at <= ?"
_RETURN = """UPDATE run SET status = 'requested', token = NULL, expires_at = 0, progress = 0
  WHERE run_id = ? AND token = ? AND status = 'running' RETURNING session, version"""


class Runs(Part):
    """Runs as work to be done, and as records."""

    def request_run(self, session_id: str, *, window: str | None = None) -> Run:
        """See GraphStore."""
        with self._db.write() as db:
            session = session_key(db, session_id)
            if session is None:
                raise NotFound(f"no session {session_id!r}", hint="nothing was stored in it")
            condition = f"(r.status = 'requested' OR {_ABANDONED})" if window is None else "r.time_window = ?"
            values = (session, self._now() if window is None else window)
            query = f"{RUN_COLUMNS} WHERE r.session = ? AND {condition} ORDER BY r.run LIMIT 1"
            row = db.execute(query, values).fetchone()
            if row is None:
                run_id = uuid4().hex
                db.execute(
                    """INSERT INTO run (run_id, session, seq, status, time_window, requested_at)
                      SELECT ?1, ?2, coalesce(max(seq), 0) + 1, 'requested', ?3, ?4 FROM run WHERE session = ?2""",
                    (run_id, session, window, self._now()),
                )
                row = _row(db, run_id)
            return to_run(row, self._now())

    def requested_runs(self, limit: int) -> list[Run]:
        """See GraphStore. Oldest first."""
        query = f"""{RUN_COLUMNS} WHERE r.status IN ('requested', 'running')
          AND (r.status = 'requested' OR {_ABANDONED}) ORDER BY r.run LIMIT ?"""
        with self._db.read() as db:
            now = self._now()
            return [to_run(row, now) for row in db.execute(query, (now, limit))]

    def start_run(self, run_id: str, *, token: str, lease_seconds: float) -> Run:
        """See GraphStore. What an earlier run of the session left behind is cleared away before this returns."""
        with self._db.write() as db:
            now = self._now()
            row = _row(db, run_id)
            session = row[16]
            other = db.execute(HELD, (session, None, now)).fetchone()
            if other is not None:
                raise Busy(f"session {row[1]!r} is being consolidated by run {other[0]}", hint="try again when it ends")
            if row[2] not in ("requested", "running"):
                raise Busy(f"run {run_id} is {row[2]} already", hint="request another one")
            # whoever held the session before may still be alive: its token is void from here on
            db.execute(VOID, (session,))
            db.execute(_VOID_TIDYING, (session,))
            query = """UPDATE session SET last_version = last_version + 1, leftovers = 1 WHERE session = ?
              RETURNING last_version"""
            version = db.execute(query, (session,)).fetchone()[0]
            db.execute(
                """UPDATE run SET status = 'running', token = ?, expires_at = ?, version = ?, started_at = ?,
                  progress = 0, holder = ? WHERE run_id = ?""",
                (token, now + to_duration_us(lease_seconds), version, now, self._db.holders.mine(), run_id),
            )
            run = to_run(_row(db, run_id), now)
        clear_leftovers(self._db, session, upto=version)
        return run

    def extend_run(self, run_id: str, *, token: str, lease_seconds: float, progress: float) -> bool:
        """See GraphStore."""
        with self._db.write() as db:
            changed = db.execute(
                """UPDATE run SET expires_at = ?, progress = ? WHERE run_id = ? AND token = ? AND status = 'running'""",
                (self._now() + to_duration_us(lease_seconds), progress, run_id, token),
            )
            return changed.rowcount == 1

    def hold_run(self, run_id: str, *, token: str, lease_seconds: float) -> bool:
        """See GraphStore."""
        with self._db.write() as db:
            now = self._now()
            lease = (now + to_duration_us(lease_seconds), self._db.holders.mine())
            held = db.execute(_HOLD, (run_id, token, now, *lease)).fetchone()
            if held is not None:
                db.execute(VOID, held)
            return held is not None

    def release_run(self, run_id: str, *, token: str) -> None:
        """See GraphStore."""
        query = "UPDATE run SET token = NULL, expires_at = 0 WHERE run_id = ? AND token = ? AND status <> 'running'"
        with self._db.write() as db:
            db.execute(query, (run_id, token))

    def finish_run(self, run: Run, *, token: str) -> bool:
        """See GraphStore. What it staged is cleared away."""
        with self._db.write() as db:
            if not record_end(db, run, token, self._now()):
                return False
            session, version = db.execute("SELECT session, version FROM run WHERE run_id = ?", (run.run_id,)).fetchone()
        clear_leftovers(self._db, session, upto=version + 1)
        return True

    def return_run(self, run_id: str, *, token: str) -> bool:
        """See GraphStore."""
        with self._db.write() as db:
            returned = db.execute(_RETURN, (run_id, token)).fetchone()
        if returned is None:
            return False
        session, version = returned
        clear_leftovers(self._db, session, upto=version + 1)
        return True

    def cancel_run(self, run_id: str) -> Run:
        """See GraphStore."""
        with self._db.write() as db:
            row = _row(db, run_id)
            if row[2] not in ("requested", "running"):
                raise Busy(f"run {run_id} is {row[2]} already", hint="ww rollback takes a visible run back")
            query = (
                "UPDATE run SET status = 'cancelled', token = NULL, expires_at = 0, finished_at = ? WHERE run_id = ?"
            )
            db.execute(query, (self._now(), run_id))
            run = to_run(_row(db, run_id), self._now())
        clear_leftovers(self._db, row[16], upto=row[17] + 1)
        return run

    def running_runs(self) -> list[Run]:
        """See GraphStore."""
        query = f"{RUN_COLUMNS} WHERE r.status = 'running' AND r.expires_at > ? ORDER BY r.started_at, r.run"
        with self._db.read() as db:
            now = self._now()
            return [to_run(row, now) for row in db.execute(query, (now,))]

    def run(self, run_id: str) -> Run:
        """See GraphStore. With its clusters where it was published and is kept. Raises NotFound."""
        with self._db.read() as db:
            row = _row(db, run_id)
            return to_run(row, self._now(), labels.read_clusters(db, row[16], row[17]) if row[17] else ())

    def current_run(self, session_id: str) -> Run | None:
        """See GraphStore."""
        query = f"{RUN_COLUMNS} WHERE t.session_id = ? AND t.current > 0 AND r.version = t.current"
        with self._db.read() as db:
            row = db.execute(query, (session_id,)).fetchone()
            return None if row is None else to_run(row, self._now(), labels.read_clusters(db, row[16], row[17]))

    def current_attempts(self, session_ids: Sequence[str] = ()) -> dict[str, str]:
        """See GraphStore."""
        source = "json_each(?) j CROSS JOIN session t ON t.session_id = j.value" if session_ids else "session t"
        query = f"""SELECT t.session_id, r.run_id, r.version FROM {source}
          CROSS JOIN run r ON r.session = t.session AND r.version = t.current WHERE t.current > 0"""
        with self._db.read() as db:
            rows = db.execute(query, (as_list(session_ids),) if session_ids else ())
            return {session_id: attempt(run_id, version) for session_id, run_id, version in rows}

    def live_attempts(self, attempts: Sequence[str]) -> set[str]:
        """See GraphStore."""
        query = """SELECT r.run_id, r.version FROM json_each(?) j CROSS JOIN run r ON r.run_id = j.value
          WHERE r.status = 'running' OR (r.status = 'done' AND r.base IS NOT NULL)"""
        with self._db.read() as db:
            rows = db.execute(query, (as_list({of_attempt(name)[0] for name in attempts}),)).fetchall()
        return {attempt(run_id, version) for run_id, version in rows} & set(attempts)

    def runs(self, session_id: str | None = None, *, limit: int = 50) -> list[Run]:
        """See GraphStore."""
        where, values = ("", ()) if session_id is None else ("WHERE t.session_id = ?", (session_id,))
        with self._db.read() as db:
            rows = db.execute(f"{RUN_COLUMNS} {where} ORDER BY r.run DESC LIMIT ?", (*values, limit))
            now = self._now()
            return [to_run(row, now) for row in rows]


def record_end(db: sqlite3.Connection, run: Run, token: str, now: int) -> bool:
    """Write down how a run ended, where ``token`` still holds it; status ``done`` where the caller left it running."""
    status = "done" if run.status in ("requested", "running") else run.status
    figures = (run.considered, run.sampled, run.assigned, run.noise, run.folded, run.seconds, run.error)
    changed = db.execute(
        """UPDATE run SET status = ?, token = NULL, expires_at = 0, finished_at = ?, considered = ?, sampled = ?,
          assigned = ?, noise = ?, folded = ?, seconds = ?, error = ?, progress = 1
          WHERE run_id = ? AND token = ? AND status = 'running'""",
        (status, now, *figures, run.run_id, token),
    )
    return changed.rowcount == 1


def to_run(row: Sequence[Any], now: int, clusters: tuple[Any, ...] = ()) -> Run:
    """A run from a row of ``RUN_COLUMNS``, as it is at ``now`` (microseconds)."""
    abandoned = row[2] == "running" and row[19] <= now
    return Run(
        run_id=row[0],
        session_id=row[1],
        status="requested" if abandoned else row[2],
        seq=row[3],
        window=row[4],
        requested_at=to_time(row[5]),
        started_at=to_time_or_none(row[6]),
        finished_at=to_time_or_none(row[7]),
        considered=row[8],
        sampled=row[9],
        assigned=row[10],
        noise=row[11],
        folded=row[12],
        seconds=row[13],
        error=row[14],
        progress=row[15],
        attempt=attempt(row[0], row[17]),
        clusters=clusters,
    )


def _row(db: sqlite3.Connection, run_id: str) -> Sequence[Any]:
    row: Sequence[Any] | None = db.execute(f"{RUN_COLUMNS} WHERE r.run_id = ?", (run_id,)).fetchone()
    if row is None:
        raise NotFound(f"no run {run_id!r}", hint="ww runs lists them")
    return row
