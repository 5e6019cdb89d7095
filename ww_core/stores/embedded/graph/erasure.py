"""Erasing episodes for good."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

from ww_core.stores.embedded.graph import dirt, labels
from ww_core.stores.embedded.graph.copies import forget_session_texts, forget_texts
from ww_core.stores.embedded.graph.episodes import drop_letters, forget_firsts, leave_fresh
from ww_core.stores.embedded.graph.membership import forget_memberships
from ww_core.stores.embedded.graph.rows import Part, as_list, empty_bodies, session_key
from ww_core.stores.ports import Dirty

STEP = 1000
"""Episodes of one transaction."""
_UNWIPED = "erasure.unwiped"
"""Set while the write-ahead log may still hold what was erased."""
_NAMELESS = "\x1f"
"""What the name of an erased session is replaced with, and its number: no name of a living one has such a character."""
_EMPTY = "NOT EXISTS (SELECT 1 FROM episode e WHERE e.session = s.session AND e.at IS NOT NULL)"
_VOID_RUNS = """UPDATE run SET status = 'requested', token = NULL WHERE status = 'running' AND session IN
  (SELECT e.session FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value)"""

log = logging.getLogger(__name__)


class Erasure(Part):
    """Tombstones."""

    def tombstone(self, *, episode_ids: Sequence[str] = (), session_id: str | None = None) -> tuple[list[str], int]:
        """See GraphStore. In steps of some thousand episodes: a session of a million must not hold writers up."""
        with self._db.read() as db:
            seqs = _living(db, episode_ids, session_id)
        if session_id is not None:
            forget_session_texts(self._db, session_id)
        erased: list[str] = []
        memberships = 0
        for start in range(0, len(seqs), STEP):
            with self._db.write() as db:
                names, removed = _erase(db, seqs[start : start + STEP])
            erased += names
            memberships += removed
        if session_id is not None:
            with self._db.write() as db:
                _leave(db, session_id)
        if erased or session_id is not None:
            self._wipe()
        return erased, memberships

    def unfinished_tombstones(self, limit: int) -> list[str]:
        """See GraphStore."""
        query = "SELECT e.episode_id FROM unfinished u JOIN episode e ON e.seq = u.seq ORDER BY u.seq LIMIT ?"
        with self._db.read() as db:
            unwiped = db.execute("SELECT 1 FROM counter WHERE name = ?", (_UNWIPED,)).fetchone() is not None
            found = [name for (name,) in db.execute(query, (limit,))]
        # whoever sweeps asks here: the moment to try again where a reader was in the way
        if unwiped:
            self._wipe()
        return found

    def finish_tombstones(self, episode_ids: Sequence[str]) -> None:
        """See GraphStore."""
        with self._db.write() as db:
            db.execute(
                """DELETE FROM unfinished WHERE seq IN
                  (SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value)""",
                (as_list(episode_ids),),
            )

    def scrub(self) -> None:
        """See GraphStore. Where SQLite divides a page of a table it may leave, about once in a thousand rows, a copy of
        a row that moved on it; rows written in their order do not move."""
        with self._db.write() as db:
            db.execute("CREATE TEMP TABLE living AS SELECT * FROM digest")
            db.execute("DELETE FROM digest")
            db.execute("INSERT INTO digest SELECT * FROM temp.living ORDER BY session, digest, seq")
            db.execute("DROP TABLE temp.living")
            db.execute("INSERT OR REPLACE INTO counter VALUES (?, 1)", (_UNWIPED,))
        self._wipe()

    def unfinished_sessions(self, limit: int) -> list[str]:
        """See GraphStore."""
        query = "SELECT s.session_id FROM unfinished_session u JOIN session s ON s.session = u.session LIMIT ?"
        with self._db.read() as db:
            return [name for (name,) in db.execute(query, (limit,))]

    def finish_session(self, session_id: str) -> None:
        """See GraphStore. The row stays, under a name that says nothing: tombstones refer to its number."""
        with self._db.write() as db:
            session = session_key(db, session_id)
            db.execute("DELETE FROM unfinished_session WHERE session = ?", (session,))
            query = f"UPDATE session AS s SET session_id = ? || s.session WHERE s.session = ? AND {_EMPTY}"
            db.execute(query, (_NAMELESS, session))
            db.execute("INSERT OR REPLACE INTO counter VALUES (?, 1)", (_UNWIPED,))
        self._wipe()

    def _wipe(self) -> None:
        if self._db.wipe():
            with self._db.write() as db:
                db.execute("DELETE FROM counter WHERE name = ?", (_UNWIPED,))
        else:
            log.info("write-ahead log is in use, to be emptied later", extra={"action": "erasure.wipe_later"})


def _living(db: sqlite3.Connection, episode_ids: Sequence[str], session_id: str | None) -> list[int]:
    """Rows that are to be erased: the ids, and everything in the session."""
    query = """SELECT DISTINCT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value
      WHERE e.at IS NOT NULL"""
    seqs = {seq for (seq,) in db.execute(query, (as_list(episode_ids),))}
    if session_id is not None:
        query = "SELECT seq FROM episode WHERE session = ? AND at IS NOT NULL"
        seqs.update(seq for (seq,) in db.execute(query, (session_key(db, session_id),)))
    return sorted(seqs)


def _leave(db: sqlite3.Connection, session_id: str) -> None:
    """Take leave of a session without episodes: its runs and what they found go at once, its name when the vectors have
    gone."""
    query = f"SELECT s.session FROM session s WHERE s.session_id = ? AND {_EMPTY}"
    for (session,) in db.execute(query, (session_id,)).fetchall():
        labels.drop_clusters(db, "session = ?", (session,))
        db.execute("DELETE FROM run WHERE session = ?", (session,))
        db.execute("UPDATE session SET current = 0, leftovers = 0 WHERE session = ?", (session,))
        db.execute("INSERT OR IGNORE INTO unfinished_session VALUES (?)", (session,))
        db.execute("INSERT OR REPLACE INTO counter VALUES (?, 1)", (_UNWIPED,))


def _erase(db: sqlite3.Connection, candidates: Sequence[int]) -> tuple[list[str], int]:
    query = """SELECT e.seq, e.episode_id, e.body, e.session, b.content FROM json_each(?) j
      CROSS JOIN episode e ON e.seq = j.value CROSS JOIN body b ON b.body = e.body WHERE e.at IS NOT NULL"""
    rows = db.execute(query, (as_list(candidates),)).fetchall()
    seqs = [seq for seq, *_ in rows]
    # a run that is under way has read the texts, and would publish labels made of them: it begins anew
    db.execute(_VOID_RUNS, (as_list(seqs),))
    labels.wipe_words(db, seqs)
    memberships = forget_memberships(db, seqs)
    # their context vectors were made of what is erased
    dirt.mark(db, Dirty.CONTEXT, sorted(set(dirt.neighbours_of(db, seqs)) - set(seqs)))
    dirt.unmark(db, seqs)
    leave_fresh(db, seqs)
    drop_letters(db, seqs)
    forget_firsts(db, seqs)
    forget_texts(db, [(session, seq, content) for seq, _, _, session, content in rows])
    empty_bodies(db, [body for _, _, body, _, _ in rows])
    keys = [(seq,) for seq in seqs]
    db.executemany(
        """UPDATE episode SET state = 4, lease = NULL, due_at = 0, batch = 0, at = NULL, position = 0, outcome = NULL,
          importance = 0, body = NULL, windows = 0, archived = 0 WHERE seq = ?""",
        keys,
    )
    db.executemany("INSERT OR IGNORE INTO unfinished VALUES (?)", keys)
    db.execute("INSERT OR REPLACE INTO counter VALUES (?, 1)", (_UNWIPED,))
    return [name for _, name, *_ in rows], memberships
