"""Exact copies among what runs have placed: digests of texts, in a table of their own.

They are not written when an episode is stored, nor when a run places it: in a table that is ordered by digests each row
is on another page, and a commit writes whole pages. Behind a run, sorted, a page takes many of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from operator import itemgetter

from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.graph.rows import VISIBLE, Part, as_list, session_key
from ww_core.stores.ports import ReadTexts
from ww_core.stores.texts import SIZE, digest

STEP = 2000
"""Rows of one transaction, some 20 ms."""
_END = 2**62
"""Behind every row of a version."""

_PLACED = """SELECT m.from_version, m.seq, e.body, b.content FROM membership m
  CROSS JOIN episode e ON e.seq = m.seq CROSS JOIN body b ON b.body = e.body
  WHERE m.session = ? AND (m.from_version, m.seq) > (?, ?) AND m.from_version <= ?
  ORDER BY m.from_version, m.seq LIMIT ?"""
_WRITE = "INSERT OR IGNORE INTO digest SELECT ?, ?, seq FROM episode WHERE seq = ? AND body = ?"
_WRITE_READ = """INSERT OR IGNORE INTO digest SELECT e.session, substr(?1, 1 + ?2 * j.key, ?2), e.seq
  FROM json_each(?3) j CROSS JOIN episode e ON e.episode_id = j.value
  CROSS JOIN session s ON s.session = e.session CROSS JOIN membership m ON m.session = e.session AND m.seq = e.seq
    AND m.from_version = s.current
  WHERE e.generation = ?4 AND s.session = ?5 AND s.current = ?6"""
# Where each of them was written, and they are as many as the run placed for the first time, it placed no others.
_ALL_WRITTEN = """UPDATE session SET digested_version = ?1, digested_seq = ?2 WHERE session = ?3 AND current = ?1
  AND (?4 = 0 OR (digested_version, digested_seq) >= (?4, ?2))
  AND ?5 = (SELECT count(*) FROM membership m WHERE m.session = ?3 AND m.from_version = ?1 AND NOT EXISTS (
    SELECT 1 FROM membership o WHERE o.session = m.session AND o.seq = m.seq AND o.from_version < ?1))"""
_BODIES = "SELECT e.seq, e.body FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value"
_TEXTS = """SELECT e.seq, b.content FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value
  CROSS JOIN body b ON b.body = e.body"""
_COPY = f"""SELECT coalesce(o.episode_id, e.episode_id) FROM digest k CROSS JOIN session s ON s.session = k.session
  CROSS JOIN membership m ON m.session = k.session AND m.seq = k.seq AND {VISIBLE}
  CROSS JOIN episode e ON e.seq = k.seq LEFT JOIN episode o ON o.seq = m.duplicate_of
  WHERE k.session = ? AND k.digest = ? ORDER BY k.seq LIMIT 1"""
_ORPHANS = """SELECT m.duplicate_of, m.session, m.seq, m.from_version, b.content
  FROM json_each(?) j CROSS JOIN membership m ON m.duplicate_of = j.value
  CROSS JOIN episode e ON e.seq = m.seq CROSS JOIN body b ON b.body = e.body
  ORDER BY e.at, e.position, e.episode_id"""


class Copies(Part):
    """Which episodes say the same."""

    def copies(self, session_id: str, digests: Sequence[bytes]) -> dict[bytes, str]:
        """See GraphStore."""
        found: dict[bytes, str] = {}
        with self._db.read() as db:
            query = "SELECT session FROM session WHERE session_id = ? AND current > 0"
            for (session,) in db.execute(query, (session_id,)).fetchall():
                for text in digests:
                    row = db.execute(_COPY, (session, text)).fetchone()
                    if row is not None:
                        found[text] = row[0]
        return found

    def index_texts(self, session_id: str, *, limit: int) -> bool:
        """See GraphStore."""
        query = "SELECT session, digested_version, digested_seq, current FROM session WHERE session_id = ?"
        with self._db.read() as db:
            known = db.execute(query, (session_id,)).fetchone()
            if known is None or known[1:3] >= (known[3], _END):
                return False
            placed = db.execute(_PLACED, (*known, limit)).fetchall()
        session, current = known[0], known[3]
        more = len(placed) == limit
        end = placed[-1][:2] if more else (current, _END)
        texts = [(digest(content), seq, body) for _, seq, body, content in placed]
        texts.sort(key=itemgetter(0))
        for start in range(0, len(texts), STEP):
            self._write(session, texts[start : start + STEP])
        with self._db.write() as db:
            query = "UPDATE session SET digested_version = ?, digested_seq = ? WHERE session = ?"
            db.execute(query, (*end, session))
        return more

    def index_read(self, run_id: str, texts: Iterable[ReadTexts]) -> None:
        """See GraphStore."""
        with self._db.read() as db:
            query = "SELECT session, version, base FROM run WHERE run_id = ?"
            session, version, base = db.execute(query, (run_id,)).fetchone() or (None, 0, 0)
        read = written = 0
        for part in texts:
            with self._db.statement() as db:
                values = (part.digests, SIZE, as_list(part.episode_ids), part.generation, session, version)
                written += db.execute(_WRITE_READ, values).rowcount
            read += len(part.episode_ids)
        if written == read:
            with self._db.write() as db:
                db.execute(_ALL_WRITTEN, (version, _END, session, base, written))

    def _write(self, session: int, texts: Sequence[tuple[bytes, int, int]]) -> None:
        """``texts``: (digest, seq, body) as they were read a moment ago."""
        with self._db.write() as db:
            if db.executemany(_WRITE, [(session, *text) for text in texts]).rowcount == len(texts):
                return
            # some were there already, or have another body by now, or none
            bodies = dict(db.execute(_BODIES, (as_list(seq for _, seq, _ in texts),)).fetchall())
            changed = as_list(seq for _, seq, body in texts if bodies[seq] != body)
            rows = [(session, digest(content), seq) for seq, content in db.execute(_TEXTS, (changed,))]
            db.executemany("INSERT OR IGNORE INTO digest VALUES (?, ?, ?)", rows)


def forget_session_texts(database: Database, session_id: str) -> None:
    """Leave no digest of a session that is about to be erased, in their order: a page takes many of them.

    A session that lives on all the same is gone through anew.
    """
    more = True
    while more:
        with database.write() as db:
            session = session_key(db, session_id)
            db.execute("UPDATE session SET digested_version = 0, digested_seq = 0 WHERE session = ?", (session,))
            rows = db.execute("SELECT * FROM digest WHERE session = ? LIMIT ?", (session, STEP)).fetchall()
            db.executemany("DELETE FROM digest WHERE session = ? AND digest = ? AND seq = ?", rows)
            more = len(rows) == STEP


def forget_texts(db: sqlite3.Connection, texts: Iterable[tuple[int, int, str]]) -> None:
    """Leave no digest of the texts, each with session and seq."""
    db.executemany(
        "DELETE FROM digest WHERE session = ? AND digest = ? AND seq = ?",
        [(session, digest(content), seq) for session, seq, content in texts],
    )


def fold_orphans(db: sqlite3.Connection, originals: Sequence[int]) -> None:
    """What was folded into the episodes loses its original: copies of one text are folded into the first of them."""
    heirs: dict[tuple[int, bytes], int] = {}
    folded = []
    for original, session, seq, begun, content in db.execute(_ORPHANS, (as_list(originals),)).fetchall():
        heir = heirs.setdefault((original, digest(content)), seq)
        folded.append((None if heir == seq else heir, session, seq, begun))
    db.executemany("UPDATE membership SET duplicate_of = ? WHERE session = ? AND seq = ? AND from_version = ?", folded)
