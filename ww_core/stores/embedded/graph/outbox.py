"""The outbox: pending episodes are leased to workers, and come back from them embedded, dead, or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from ww_core.models import DeadLetter, State
from ww_core.stores.embedded.graph import dirt
from ww_core.stores.embedded.graph.episodes import bury, raise_from_dead
from ww_core.stores.embedded.graph.rows import DELIVERIES, VISIBLE, Part, as_list, next_value, selecting, to_episode
from ww_core.stores.ports import Claim, Dirty
from ww_core.stores.values import to_duration_us, to_time

_LOST = "SELECT batch FROM episode WHERE lease = 0 AND batch > 0 AND due_at <= ? ORDER BY batch LIMIT 1"
_LOST_ROWS = "SELECT seq FROM episode WHERE lease = 0 AND batch = ? AND due_at <= ? ORDER BY seq"
_DELAYED = """SELECT seq FROM episode WHERE lease = 0 AND batch = 0 AND due_at > 0 AND due_at <= ?
  ORDER BY due_at, seq LIMIT ?"""
_NEW = "SELECT seq FROM episode WHERE lease = 0 AND batch = 0 AND due_at = 0 ORDER BY seq LIMIT ?"
_TAKE = """UPDATE episode SET state = 1, lease = ?, due_at = 0, generation = generation + 1,
  deliveries = deliveries + 1 WHERE seq IN (SELECT value FROM json_each(?))"""
_CLAIMED = selecting("episode e") + "WHERE e.lease = ? ORDER BY e.seq"
_HELD = """SELECT e.episode_id, e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value
  WHERE e.lease IN (SELECT lease FROM lease WHERE token = ?)"""
_MARK = """UPDATE episode SET state = 2, lease = NULL, batch = 0, due_at = 0, deliveries = 0, attempts = 0, losses = 0,
  windows = ?, embedded_at = ? WHERE seq = ?"""
_RELEASE = "UPDATE episode SET state = 0, lease = 0, due_at = ? WHERE seq = ?"
_PLACED = f"""SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value
  JOIN session s ON s.session = e.session
  WHERE EXISTS (SELECT 1 FROM membership m WHERE m.session = e.session AND m.seq = e.seq AND {VISIBLE})"""
_HOLDERS = "SELECT holder FROM lease UNION SELECT holder FROM run WHERE token IS NOT NULL AND expires_at > ?"
_RUNS_OF_THE_DEAD = """UPDATE run SET expires_at = 0, token = iif(status = 'running', NULL, token),
  progress = iif(status = 'running', 0, progress), status = iif(status = 'running', 'requested', status)
  WHERE token IS NOT NULL AND holder = ?"""
_FRESH = """INSERT OR IGNORE INTO fresh SELECT e.session, e.at, e.position, e.episode_id, e.seq
  FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value"""


class Outbox(Part):
    """Claims with lease, generation and fencing."""

    def has_work(self) -> bool:
        """See GraphStore."""
        with self._db.read() as db:
            return _has_work(db, self._now())

    def claim(self, limit: int, *, token: str, lease_seconds: float) -> list[Claim]:
        """See GraphStore."""
        # most looks at an empty outbox need no write lock
        if not self.has_work():
            return []
        with self._db.write() as db:
            now = self._now()
            seqs, alone = _choose(db, limit, now)
            if not seqs:
                return []
            expires = now + to_duration_us(lease_seconds)
            # numbers are never used again: a claim that was lost meanwhile must not read another's rows below
            lease = next_value(db, "lease")
            values = (lease, token, expires, alone, self._db.holders.mine())
            db.execute("INSERT INTO lease VALUES (?, ?, ?, ?, ?)", values)
            db.execute(_TAKE, (lease, as_list(seqs)))
        # read after the commit, so that writers wait for the short part only
        with self._db.read() as db:
            return [
                Claim(to_episode(row), token, generation=row[11], deliveries=row[DELIVERIES], alone=alone)
                for row in db.execute(_CLAIMED, (lease,))
            ]

    def extend(self, token: str, *, lease_seconds: float) -> int:
        """See GraphStore."""
        with self._db.write() as db:
            expires = self._now() + to_duration_us(lease_seconds)
            db.execute("UPDATE lease SET expires_at = ? WHERE token = ?", (expires, token))
            query = "SELECT count(*) FROM episode WHERE lease IN (SELECT lease FROM lease WHERE token = ?)"
            return int(db.execute(query, (token,)).fetchone()[0])

    def mark_embedded(self, token: str, windows: Mapping[str, int]) -> set[str]:
        """See GraphStore."""
        if not windows:
            return set()
        with self._db.read() as db:
            # Before the write lock: an episode embedded meanwhile marks itself dirty.
            around = dirt.neighbours_of(db, _held(db, token, windows).values())
        with self._db.write() as db:
            held = _held(db, token, windows)
            now, seqs = self._now(), as_list(sorted(held.values()))
            db.executemany(_MARK, sorted((windows[name], now, seq) for name, seq in held.items()))
            placed = {seq for (seq,) in db.execute(_PLACED, (seqs,))}
            archived = "SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value WHERE e.archived"
            dirt.mark(db, Dirty.PAYLOAD, sorted(placed.union(seq for (seq,) in db.execute(archived, (seqs,)))))
            dirt.mark(db, Dirty.CONTEXT, sorted({*held.values(), *around}))
            db.execute(_FRESH, (as_list(sorted(set(held.values()) - placed)),))
            _drop_empty_leases(db, token)
        return set(held)

    def release(self, token: str, episode_ids: Sequence[str], *, delay_seconds: float = 0.0) -> int:
        """See GraphStore. Rows of a lost lease stay with the part of it they were handed out with."""
        with self._db.write() as db:
            held = _held(db, token, episode_ids)
            due = self._now() + to_duration_us(delay_seconds) if delay_seconds > 0 else 0
            db.executemany(_RELEASE, [(due, seq) for seq in sorted(held.values())])
            _drop_empty_leases(db, token)
        return len(held)

    def fail(
        self,
        token: str,
        episode_id: str,
        *,
        error: str,
        traceback: str,
        max_attempts: int,
        delay_seconds: float,
    ) -> State | None:
        """See GraphStore."""
        with self._db.write() as db:
            seq = _held(db, token, [episode_id]).get(episode_id)
            if seq is None:
                return None
            query = "UPDATE episode SET attempts = attempts + 1 WHERE seq = ? RETURNING attempts"
            attempts = int(db.execute(query, (seq,)).fetchone()[0])
            now = self._now()
            if attempts >= max_attempts:
                bury(db, seq, attempts=attempts, error=error, traceback=traceback, now=now)
            else:
                due = now + to_duration_us(delay_seconds) if delay_seconds > 0 else 0
                db.execute(_RELEASE, (due, seq))
            _drop_empty_leases(db, token)
        return State.DEAD if attempts >= max_attempts else State.PENDING

    def expire_leases(self, *, max_attempts: int) -> int:
        """See GraphStore. Where nobody died and nothing ran out it writes nothing."""
        self._db.holders.tidy(self._db.holders.left())
        expired = "SELECT lease, alone FROM lease WHERE expires_at <= ? ORDER BY lease"
        with self._db.read() as db:
            now = self._now()
            dead = self._db.holders.dead(name for (name,) in db.execute(_HOLDERS, (now,)))
            if not dead and db.execute(expired, (now,)).fetchone() is None:
                return 0
        freed = 0
        with self._db.write() as db:
            now = self._now()
            db.executemany("UPDATE lease SET expires_at = 0 WHERE holder = ?", [(name,) for name in dead])
            db.executemany(_RUNS_OF_THE_DEAD, [(name,) for name in dead])
            for lease, alone in db.execute(expired, (now,)).fetchall():
                query = "SELECT seq FROM episode WHERE lease = ? ORDER BY seq"
                seqs = [seq for (seq,) in db.execute(query, (lease,))]
                freed += len(seqs)
                for seq in seqs if alone else []:
                    _lose_alone(db, seq, max_attempts, now)
                if not alone:
                    _halve(db, seqs)
                db.execute("DELETE FROM lease WHERE lease = ?", (lease,))
        return freed

    def dead_letters(self, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """See GraphStore."""
        query = """SELECT e.episode_id, s.session_id, d.attempts, b.content, b.context, d.failed_at FROM dead d
          JOIN episode e ON e.seq = d.seq JOIN session s ON s.session = e.session JOIN body b ON b.body = d.body
          WHERE e.episode_id > ? ORDER BY e.episode_id LIMIT ?"""
        with self._db.read() as db:
            rows = db.execute(query, (after or "", limit)).fetchall()
        return [
            DeadLetter(name, session, attempts, error, traceback, to_time(at))
            for name, session, attempts, error, traceback, at in rows
        ]

    def replay(self, episode_ids: Sequence[str] | None = None) -> int:
        """See GraphStore."""
        with self._db.write() as db:
            if episode_ids is None:
                rows = db.execute("SELECT seq FROM dead ORDER BY seq")
            else:
                query = """SELECT DISTINCT d.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value
                  JOIN dead d ON d.seq = e.seq ORDER BY d.seq"""
                rows = db.execute(query, (as_list(episode_ids),))
            seqs = [seq for (seq,) in rows.fetchall()]
            raise_from_dead(db, seqs, self._now())
        return len(seqs)


def _has_work(db: sqlite3.Connection, now: int) -> bool:
    return bool(_choose(db, 1, now)[0])


def _choose(db: sqlite3.Connection, limit: int, now: int) -> tuple[list[int], bool]:
    """The rows of the next claim, and whether it is one row by itself because it was lost before."""
    if limit < 1:
        return [], False
    lost = db.execute(_LOST, (now,)).fetchone()
    if lost is not None:
        # never mixed with others: the part of a lost lease that kills workers shows by being lost again
        part = [seq for (seq,) in db.execute(_LOST_ROWS, (lost[0], now))]
        return part[:limit], len(part) == 1
    seqs = [seq for (seq,) in db.execute(_DELAYED, (now, limit))]
    if len(seqs) < limit:
        seqs += [seq for (seq,) in db.execute(_NEW, (limit - len(seqs),))]
    return seqs, False


def _held(db: sqlite3.Connection, token: str, episode_ids: Sequence[str] | Mapping[str, int]) -> dict[str, int]:
    """Those of the ids that ``token`` still holds, with their row numbers."""
    return dict(db.execute(_HELD, (as_list(episode_ids), token)).fetchall())


def _drop_empty_leases(db: sqlite3.Connection, token: str) -> None:
    db.execute(
        """DELETE FROM lease WHERE token = ?
          AND NOT EXISTS (SELECT 1 FROM episode e WHERE e.lease = lease.lease)""",
        (token,),
    )


def _halve(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Hand rows that were lost together out in two halves."""
    middle = (len(seqs) + 1) // 2
    for half in (seqs[:middle], seqs[middle:]):
        if half:
            batch = next_value(db, "batch")
            query = "UPDATE episode SET state = 0, lease = 0, due_at = 0, batch = ? WHERE seq = ?"
            db.executemany(query, [(batch, seq) for seq in half])


def _lose_alone(db: sqlite3.Connection, seq: int, max_attempts: int, now: int) -> None:
    query = "UPDATE episode SET losses = losses + 1 WHERE seq = ? RETURNING losses"
    losses = int(db.execute(query, (seq,)).fetchone()[0])
    if losses < max_attempts:
        _halve(db, [seq])
        return
    error = f"WorkerLost: {losses} workers that held only this episode stopped without a word"
    bury(db, seq, attempts=losses, error=error, traceback="", now=now)
