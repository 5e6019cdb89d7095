"""Clearing away what runs that are not visible left behind, in short steps that may be cut off anywhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ww_core.stores.embedded.graph import dirt, labels
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.graph.rows import VISIBLE, as_list
from ww_core.stores.ports import Dirty

STEP = 2000
"""Rows of one transaction, some 20 ms."""
SEEN = 10_000
"""The same of rows that are only taken out of ``fresh``, some 40 ms."""

_BEGUN = """SELECT seq, from_version FROM membership
  WHERE session = ? AND from_version > ? AND from_version < ? LIMIT ?"""
_ENDED = """SELECT seq, from_version FROM membership
  WHERE session = ? AND to_version IS NOT NULL AND to_version > ? AND to_version < ? LIMIT ?"""
_FRESH_AGAIN = f"""INSERT OR IGNORE INTO fresh SELECT e.session, e.at, e.position, e.episode_id, e.seq
  FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value JOIN session s ON s.session = e.session
  WHERE e.state = 2
  AND NOT EXISTS (SELECT 1 FROM membership m WHERE m.session = e.session AND m.seq = e.seq AND {VISIBLE})"""
_END_OF_PAGE = """SELECT at, position, episode_id FROM fresh
  WHERE session = ? AND (at, position, episode_id) > (?, ?, ?) ORDER BY at, position, episode_id LIMIT 1 OFFSET ?"""
_SEEN = f"""DELETE FROM fresh WHERE session = ? AND (at, position, episode_id) > (?, ?, ?)
  AND (at, position, episode_id) <= (?, ?, ?) AND EXISTS (SELECT 1 FROM session s
    CROSS JOIN membership m ON m.session = s.session AND m.seq = fresh.seq AND {VISIBLE}
    WHERE s.session = fresh.session)"""
_FIRST, _LAST = (-(2**62), 0, ""), (2**62, 0, "")
"""Before and behind every place in ``fresh``."""


def clear_leftovers(database: Database, session: int, *, upto: int) -> None:
    """Undo what invisible runs of versions below ``upto`` staged: safe to repeat, and to be cut off anywhere.

    Runs that start meanwhile have higher versions and are not touched. The payload of every point concerned is marked
    dirty, since such a run may have written it beforehand.
    """
    with database.read() as db:
        query = "SELECT current FROM session WHERE session = ? AND leftovers"
        if db.execute(query, (session,)).fetchone() is None:
            return
    done = False
    while not done:
        with database.write() as db:
            current = db.execute("SELECT current FROM session WHERE session = ?", (session,)).fetchone()[0]
            begun = db.execute(_BEGUN, (session, current, upto, STEP)).fetchall()
            ended = db.execute(_ENDED, (session, current, upto, STEP)).fetchall()
            delete_memberships(db, [(session, *row) for row in begun])
            db.executemany(
                "UPDATE membership SET to_version = NULL WHERE session = ? AND seq = ? AND from_version = ?",
                [(session, *row) for row in ended],
            )
            touched = sorted({seq for seq, _ in begun + ended})
            if touched:
                dirt.mark(db, Dirty.PAYLOAD, touched)
                db.execute(_FRESH_AGAIN, (as_list(touched),))
            done = len(begun) < STEP and len(ended) < STEP
            if done:
                labels.drop_clusters(db, "session = ? AND version > ? AND version < ?", (session, current, upto))
                db.execute(
                    """UPDATE session SET leftovers = 0 WHERE session = ?1 AND last_version < ?2
                      AND NOT EXISTS (SELECT 1 FROM run WHERE session = ?1 AND status = 'running')""",
                    (session, upto),
                )


def clear_idle_leftovers(database: Database, session_id: str | None) -> None:
    """Finish clearing where a process died over it; sessions with a run under way are left to that run."""
    query = """SELECT t.session, t.last_version FROM session t WHERE t.leftovers AND (?1 IS NULL OR t.session_id = ?1)
      AND NOT EXISTS (SELECT 1 FROM run r WHERE r.session = t.session AND r.status = 'running')"""
    with database.read() as db:
        found = db.execute(query, (session_id,)).fetchall()
    for session, last in found:
        clear_leftovers(database, session, upto=last + 1)


def settle_fresh(database: Database, session: int) -> None:
    """Take out of ``fresh`` what the visible run has looked at; readers look for themselves until this is done."""
    place = _FIRST
    while place != _LAST:
        with database.write() as db:
            end = db.execute(_END_OF_PAGE, (session, *place, SEEN - 1)).fetchone() or _LAST
            db.execute(_SEEN, (session, *place, *end))
        place = end


def delete_memberships(db: sqlite3.Connection, keys: Sequence[tuple[int, int, int]]) -> None:
    db.executemany("DELETE FROM membership WHERE session = ? AND seq = ? AND from_version = ?", keys)
