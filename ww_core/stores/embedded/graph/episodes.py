"""Writing, fetching and correcting episodes."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ww_core.errors import NotFound
from ww_core.models import Episode, State
from ww_core.stores.embedded.graph import dirt
from ww_core.stores.embedded.graph.copies import forget_texts
from ww_core.stores.embedded.graph.membership import forget_memberships
from ww_core.stores.embedded.graph.rows import (
    DEAD,
    EMBEDDED,
    ERASED,
    PENDING,
    STATES,
    Part,
    append_body,
    as_list,
    empty_bodies,
    selecting,
    to_episode,
)
from ww_core.stores.ports import Added, AddResult, Dirty
from ww_core.stores.texts import added_again, first_digest
from ww_core.stores.values import to_json, to_us

_KNOWN = """SELECT e.episode_id, e.state, s.session_id, b.content
  FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value
  JOIN session s ON s.session = e.session LEFT JOIN body b ON b.body = e.body"""
_FIRST = """SELECT b.content FROM episode e JOIN corrected c ON c.seq = e.seq JOIN body b ON b.body = c.body
  WHERE e.episode_id = ?"""
_INSERT = """INSERT INTO episode
  (seq, episode_id, session, at, position, outcome, importance, body, stored_at, open_since)
  VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_GET = selecting("json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value")
_CREATED = AddResult(Added.CREATED, State.PENDING)
_NOW_PENDING = """UPDATE episode SET state = 0, lease = 0, due_at = 0, batch = 0, deliveries = 0, attempts = 0,
  losses = 0, open_since = ? WHERE seq = ?"""


class Episodes(Part):
    """The record itself."""

    def add(self, episodes: Sequence[Episode]) -> list[AddResult]:
        """See GraphStore. One transaction, whatever the number of episodes."""
        if not episodes:
            return []
        with self._db.write() as db:
            now = self._now()
            known: dict[str, tuple[int, str, str | None]] = {
                row[0]: row[1:] for row in db.execute(_KNOWN, (as_list(e.episode_id for e in episodes),))
            }
            sessions = _ensure_sessions(db, {episode.session_id for episode in episodes})
            seq = db.execute("SELECT coalesce(max(seq), 0) FROM episode").fetchone()[0]
            body = db.execute("SELECT coalesce(max(body), 0) FROM body").fetchone()[0]
            rows: list[tuple[Any, ...]] = []
            bodies: list[tuple[int, str, str | None]] = []
            results: list[AddResult] = []
            for e in episodes:
                if (seen := known.get(e.episode_id)) is not None:
                    results.append(_compare(db, e, *seen))
                    continue
                known[e.episode_id] = (PENDING, e.session_id, e.content)
                seq, body = seq + 1, body + 1
                at = now if e.timestamp is None else to_us(e.timestamp)
                session = sessions[e.session_id]
                rows.append((seq, e.episode_id, session, at, e.position, e.outcome, e.importance, body, now, now))
                bodies.append((body, e.content, to_json(e.context)))
                results.append(_CREATED)
            db.executemany("INSERT INTO body VALUES (?, ?, ?)", bodies)
            db.executemany(_INSERT, rows)
            created = Counter(row[2] for row in rows)
            db.executemany(
                "UPDATE session SET acknowledged = acknowledged + ? WHERE session = ?",
                [(number, session) for session, number in created.items()],
            )
        return results

    def get(self, episode_ids: Sequence[str]) -> dict[str, Episode]:
        """See GraphStore."""
        if not episode_ids:
            return {}
        with self._db.read() as db:
            return {row[0]: to_episode(row) for row in db.execute(_GET, (as_list(episode_ids),))}

    def update(
        self,
        episode_id: str,
        *,
        content: str | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        importance: float | None = None,
    ) -> Episode:
        """See GraphStore. Content equal to what is stored changes nothing."""
        with self._db.write() as db:
            row = db.execute(
                """SELECT e.seq, e.state, e.body, b.content, b.context, e.session
                  FROM episode e JOIN body b ON b.body = e.body WHERE e.episode_id = ?""",
                (episode_id,),
            ).fetchone()
            if row is None:
                raise NotFound(f"no episode {episode_id!r}", hint="it was never stored, or was forgotten")
            seq, state, body, old_content, old_context, session = row
            new_content = old_content if content is None else content
            new_context = old_context if context is None else to_json(context)
            if (new_content, new_context) != (old_content, old_context):
                fresh_body = append_body(db, new_content, new_context)
                db.execute("UPDATE episode SET body = ? WHERE seq = ?", (fresh_body, seq))
                empty_bodies(db, [body])
            if timestamp is not None:
                _move(db, seq, to_us(timestamp))
            if outcome is not None:
                db.execute("UPDATE episode SET outcome = ? WHERE seq = ?", (outcome, seq))
            if importance is not None:
                db.execute("UPDATE episode SET importance = ? WHERE seq = ?", (importance, seq))
            # a worker may hold the old values of a leased row: its payload is stale, too
            if any(value is not None for value in (timestamp, context, outcome, importance)):
                dirt.mark(db, Dirty.PAYLOAD, [seq])
            if new_content != old_content:
                forget_texts(db, [(session, seq, old_content)])
                _remember_first(db, seq, episode_id, old_content)
                _reopen(db, seq, state, self._now())
            return to_episode(db.execute(_GET, (as_list([episode_id]),)).fetchone())

    def reopen(self, episode_ids: Sequence[str]) -> int:
        """See GraphStore. Memberships stay: the content is the same."""
        with self._db.write() as db:
            now = self._now()
            query = "SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value WHERE e.state = ?"
            seqs = {seq for (seq,) in db.execute(query, (as_list(episode_ids), EMBEDDED))}
            leave_fresh(db, seqs)
            db.executemany(_NOW_PENDING, [(now, seq) for seq in sorted(seqs)])
        return len(seqs)


def bury(db: sqlite3.Connection, seq: int, *, attempts: int, error: str, traceback: str, now: int) -> None:
    """Make a row dead, with the reason."""
    letter = append_body(db, error, traceback)
    db.execute("INSERT OR REPLACE INTO dead VALUES (?, ?, ?, ?)", (seq, attempts, now, letter))
    db.execute("UPDATE episode SET state = ?, lease = NULL, due_at = 0, batch = 0 WHERE seq = ?", (DEAD, seq))


def raise_from_dead(db: sqlite3.Connection, seqs: Sequence[int], now: int) -> None:
    """Make dead rows pending with fresh attempts, and wipe the reason."""
    drop_letters(db, seqs)
    db.executemany(_NOW_PENDING, [(now, seq) for seq in seqs])


def drop_letters(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Forget why rows died."""
    letters = db.execute(
        "SELECT d.body FROM json_each(?) j CROSS JOIN dead d ON d.seq = j.value", (as_list(seqs),)
    ).fetchall()
    empty_bodies(db, [body for (body,) in letters])
    db.executemany("DELETE FROM dead WHERE seq = ?", [(seq,) for seq in seqs])


def leave_fresh(db: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Take rows out of those waiting for a consolidation."""
    db.execute(
        """DELETE FROM fresh WHERE (session, at, position, episode_id) IN
          (SELECT e.session, e.at, e.position, e.episode_id
            FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value)""",
        (as_list(seqs),),
    )


def forget_firsts(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Leave nothing of the texts that updates replaced."""
    query = "SELECT c.seq, c.body FROM json_each(?) j CROSS JOIN corrected c ON c.seq = j.value"
    rows = db.execute(query, (as_list(seqs),)).fetchall()
    empty_bodies(db, [body for _, body in rows])
    db.executemany("DELETE FROM corrected WHERE seq = ?", [(seq,) for seq, _ in rows])


def _remember_first(db: sqlite3.Connection, seq: int, episode_id: str, content: str) -> None:
    """Keep by which digest the text is known again that the episode was stored with."""
    if db.execute("SELECT 1 FROM corrected WHERE seq = ?", (seq,)).fetchone() is None:
        body = append_body(db, first_digest(episode_id, content), None)
        db.execute("INSERT INTO corrected VALUES (?, ?)", (seq, body))


def _compare(db: sqlite3.Connection, episode: Episode, state: int, session_id: str, content: str | None) -> AddResult:
    if state == ERASED:
        return AddResult(Added.ERASED, State.ERASED)
    first = None
    if content != episode.content:
        first = next((kept for (kept,) in db.execute(_FIRST, (episode.episode_id,))), None)
    return AddResult(added_again(episode, session_id, content, first), STATES[state])


def _ensure_sessions(db: sqlite3.Connection, session_ids: set[str]) -> dict[str, int]:
    db.executemany("INSERT OR IGNORE INTO session (session_id) VALUES (?)", [(name,) for name in sorted(session_ids)])
    query = "SELECT s.session_id, s.session FROM json_each(?) j CROSS JOIN session s ON s.session_id = j.value"
    return dict(db.execute(query, (as_list(session_ids),)).fetchall())


def _move(db: sqlite3.Connection, seq: int, at: int) -> None:
    """Give an episode another place in its session: its old and its new neighbours have other surroundings now."""
    around = dirt.neighbours_of(db, [seq])
    db.execute(
        """UPDATE fresh SET at = ? WHERE (session, at, position, episode_id) =
          (SELECT session, at, position, episode_id FROM episode WHERE seq = ?)""",
        (at, seq),
    )
    db.execute("UPDATE episode SET at = ? WHERE seq = ?", (at, seq))
    dirt.mark(db, Dirty.CONTEXT, sorted({seq, *around, *dirt.neighbours_of(db, [seq])}))


def _reopen(db: sqlite3.Connection, seq: int, state: int, now: int) -> None:
    """Let new content be embedded; what was derived from the old one goes."""
    forget_memberships(db, [seq])
    if state == EMBEDDED:
        leave_fresh(db, [seq])
    if state == DEAD:
        drop_letters(db, [seq])
    db.execute(_NOW_PENDING, (now, seq))
