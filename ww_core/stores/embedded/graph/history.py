"""Publishing runs, taking them back, and clearing away what no state needs any more.

A session's pointer decides which rows are visible; only flipping it changes what readers see, and that is one small
transaction. Everything else happens before or after in short steps, so that a crash anywhere leaves the old state or
the new one, and writers never wait long.
"""

from __future__ import annotations

import sqlite3

from ww_core.errors import Busy, InvalidInput, NotFound
from ww_core.models import Run, attempt
from ww_core.stores.embedded.graph import labels, runs
from ww_core.stores.embedded.graph.leftovers import STEP, clear_leftovers, delete_memberships, settle_fresh
from ww_core.stores.embedded.graph.rows import Part, session_key
from ww_core.stores.embedded.graph.staging import cluster_keys
from ww_core.stores.values import to_duration_us

RUN_RECORDS = 500
"""Runs of a session that stay listed; what they published is kept for fewer."""


class History(Part):
    """Which run of a session is visible."""

    def publish(self, run: Run, *, token: str, lease_seconds: float = 0.0) -> bool:
        """See GraphStore."""
        with self._db.write() as db:
            now = self._now()
            if not runs.record_end(db, run, token, now):
                return False
            session, version, base = db.execute(
                """SELECT r.session, r.version, s.current FROM run r JOIN session s ON s.session = r.session
                  WHERE r.run_id = ?""",
                (run.run_id,),
            ).fetchone()
            keys = cluster_keys(db, {cluster.cluster_id for cluster in run.clusters})
            labels.write_clusters(db, session, version, base, run.clusters, keys)
            db.execute("UPDATE run SET base = ? WHERE run_id = ?", (base, run.run_id))
            if lease_seconds:
                query = "UPDATE run SET token = ?, expires_at = ? WHERE run_id = ?"
                db.execute(query, (token, now + to_duration_us(lease_seconds), run.run_id))
            # start_run cleared everything else away, and what this run staged is what is visible now
            db.execute("UPDATE session SET current = ?, leftovers = 0 WHERE session = ?", (version, session))
        settle_fresh(self._db, session)
        return True

    def rollback_run(self, run_id: str, *, token: str | None = None) -> Run:
        """See GraphStore."""
        with self._db.write() as db:
            row = db.execute(
                """SELECT r.session, r.version, r.base, s.current, s.oldest_version, s.last_version, t.run_id
                  FROM run r JOIN session s ON s.session = r.session
                  LEFT JOIN run t ON t.session = s.session AND t.version = s.current AND s.current > 0
                  WHERE r.run_id = ?""",
                (run_id,),
            ).fetchone()
            if row is None:
                raise NotFound(f"no run {run_id!r}", hint="ww runs lists them")
            session, version, base, current, oldest, last, visible = row
            if version != current or not version:
                hint = "nothing is published" if visible is None else f"the visible run is {visible}"
                raise InvalidInput(f"run {run_id} is not the visible run of its session", hint=hint)
            if base and base < oldest:
                raise InvalidInput(
                    f"the state before run {run_id} is no longer kept", hint="consolidation_keep_runs says how many are"
                )
            _stop_abandoned(db, session, self._now(), token)
            db.execute("UPDATE run SET status = 'rolled_back' WHERE run_id = ?", (run_id,))
            db.execute("UPDATE session SET current = ?, leftovers = 1 WHERE session = ?", (base, session))
        clear_leftovers(self._db, session, upto=last + 1)
        with self._db.read() as db:
            row = db.execute(f"{runs.RUN_COLUMNS} WHERE r.run_id = ?", (run_id,)).fetchone()
            return runs.to_run(row, self._now())

    def prune_runs(self, session_id: str, keep: int) -> list[str]:
        """See GraphStore."""
        if keep < 1:
            raise InvalidInput(f"cannot keep {keep} runs", hint="1 or more")
        with self._db.write() as db:
            session = session_key(db, session_id)
            kept = [] if session is None else _chain(db, session, keep)
            if session is None or not kept:
                return []
            oldest = kept[-1][1]
            db.execute(
                "UPDATE session SET oldest_version = max(oldest_version, ?) WHERE session = ?", (oldest, session)
            )
            labels.drop_clusters(db, "session = ? AND version < ?", (session, oldest))
            db.execute(
                """DELETE FROM run WHERE session = ?1 AND version < ?2 AND status NOT IN ('requested', 'running')
                  AND run NOT IN (SELECT run FROM run WHERE session = ?1 ORDER BY run DESC LIMIT ?3)""",
                (session, oldest, RUN_RECORDS),
            )
        while True:
            with self._db.write() as db:
                query = """SELECT session, seq, from_version FROM membership
                  WHERE session = ? AND to_version IS NOT NULL AND to_version <= ? LIMIT ?"""
                rows = db.execute(query, (session, oldest, STEP)).fetchall()
                delete_memberships(db, rows)
            if len(rows) < STEP:
                return [attempt(run_id, version) for run_id, version in kept]


def _stop_abandoned(db: sqlite3.Connection, session: int, now: int, token: str | None) -> None:
    held = db.execute(runs.HELD, (session, token, now)).fetchone()
    if held is not None:
        raise Busy(f"run {held[0]} of the session is under way", hint="try again when it ends")
    db.execute(runs.VOID, (session,))


def _chain(db: sqlite3.Connection, session: int, keep: int) -> list[tuple[str, int]]:
    """(run id, version) of the visible run and of those before it, as far as rollbacks reach and ``keep`` allows."""
    version, oldest = db.execute("SELECT current, oldest_version FROM session WHERE session = ?", (session,)).fetchone()
    chain: list[tuple[str, int]] = []
    while version and version >= oldest and len(chain) < keep:
        query = "SELECT run_id, base FROM run WHERE session = ? AND version = ?"
        run_id, base = db.execute(query, (session, version)).fetchone()
        chain.append((run_id, version))
        version = base
    return chain
