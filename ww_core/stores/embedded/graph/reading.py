"""Reading episodes in order, and counting them."""

from __future__ import annotations

import heapq
import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from ww_core.models import Counts, Episode, SessionInfo, State, scalar_context
from ww_core.stores.embedded.graph import order
from ww_core.stores.embedded.graph.rows import DEAD, ERASED, STATES, Part, as_list, selecting, session_key, to_episode
from ww_core.stores.ports import Place, Where, place_of
from ww_core.stores.values import to_time, to_us

MERGED_SESSIONS = 32
"""Up to so many sessions are read one by one and merged; more are filtered out of the order over all sessions."""
BACKLOG_SAMPLE = 256
"""Rows looked at, at the head of each queue, for the age of the oldest."""

_AROUND = "(e.at, e.position, e.episode_id) {beyond} (SELECT at, position, episode_id FROM episode WHERE seq = ?)"


class Reading(Part):
    """Pages, neighbours, sessions and counts."""

    def page(
        self,
        where: Where,
        *,
        after: Place | None = None,
        limit: int = 500,
        newest_first: bool = False,
        states: Sequence[State] = (),
    ) -> list[Episode]:
        """See GraphStore. A filter by context reads until ``limit`` episodes fit."""
        with self._db.read() as db:
            conditions, values = _conditions(where, after, newest_first, states)
            if where.context:
                db.create_function("context_fits", 1, _fits(dict(where.context)))
            if where.episode_ids:
                return _by_id(db, where, conditions, values, limit, newest_first)
            keys = [session_key(db, name) for name in dict.fromkeys(where.sessions)]
            sessions = [key for key in keys if key is not None]
            if where.sessions and not sessions:
                return []
            if not sessions or len(sessions) > MERGED_SESSIONS:
                if sessions:
                    conditions += " AND e.session IN (SELECT value FROM json_each(?))"
                    values.append(as_list(sessions))
                return _ordered(db, conditions, values, limit, newest_first)
            parts = [
                _ordered(db, conditions + " AND e.session = ?", [*values, key], limit, newest_first) for key in sessions
            ]
        return list(heapq.merge(*parts, key=place_of, reverse=newest_first))[:limit]

    def neighbours(self, episode_id: str, *, before: int, after: int) -> list[Episode]:
        """See GraphStore. Empty where there is no such episode."""
        with self._db.read() as db:
            row = db.execute("SELECT seq, session FROM episode WHERE episode_id = ?", (episode_id,)).fetchone()
            if row is None:
                return []
            seq, session = row
            conditions, values = " AND e.session = ? AND " + _AROUND, [session, seq]
            earlier = _ordered(db, conditions.format(beyond="<"), values, before, newest_first=True)
            later = _ordered(db, conditions.format(beyond=">="), values, after + 1, newest_first=False)
        return [*reversed(earlier), *later]

    def around(self, episode_ids: Sequence[str], *, reach: int) -> dict[str, tuple[str | None, ...]]:
        """See GraphStore."""
        with self._db.read() as db:
            return order.around(db, "episode_id", episode_ids, reach)

    def sessions(self) -> list[SessionInfo]:
        """See GraphStore. By name; sessions whose episodes are all erased are left out."""
        query = """SELECT s.session_id,
          s.acknowledged - (SELECT count(*) FROM episode e
            WHERE e.state >= 3 AND e.state = 4 AND e.session = s.session),
          (SELECT min(at) FROM episode e WHERE e.session = s.session AND e.at IS NOT NULL),
          (SELECT max(at) FROM episode e WHERE e.session = s.session AND e.at IS NOT NULL),
          (SELECT count(*) FROM cluster c WHERE c.session = s.session AND c.version = s.current AND c.change <> 'gone')
          FROM session s ORDER BY s.session_id"""
        with self._db.read() as db:
            rows = db.execute(query).fetchall()
        return [
            SessionInfo(name, episodes, to_time(first), to_time(last), clusters)
            for name, episodes, first, last, clusters in rows
            if first is not None
        ]

    def counts(self, session_id: str | None = None) -> Counts:
        """See GraphStore.

        ``acknowledged`` is a counter kept with every insert; the states are counted from the rows themselves, over
        indexes that hold only what is open or ended, so that a row that vanished unbalances the account.
        """
        with self._db.read() as db:
            if session_id is None:
                where, values = "", []
                acknowledged = "SELECT coalesce(sum(acknowledged), 0) FROM session"
            else:
                where, values = " AND e.session = ?", [session_key(db, session_id)]
                acknowledged = "SELECT coalesce(sum(acknowledged), 0) FROM session e WHERE 1 = 1" + where
            ended = "FROM episode e WHERE e.state >= 3 AND e.state = "
            pending, leased, dead, erased, stored, total = (
                int(db.execute(query, values).fetchone()[0])
                for query in (
                    "SELECT count(*) FROM episode e WHERE e.lease = 0" + where,
                    "SELECT count(*) FROM episode e WHERE e.lease > 0" + where,
                    f"SELECT count(*) {ended}{DEAD}{where}",
                    f"SELECT count(*) {ended}{ERASED}{where}",
                    "SELECT count(*) FROM episode e"
                    if session_id is None
                    else "SELECT count(*) FROM episode e WHERE e.at IS NOT NULL" + where,
                    acknowledged,
                )
            )
        embedded = stored - pending - leased - dead - (erased if session_id is None else 0)
        return Counts(total, pending, leased, embedded, dead, erased)

    def stored_mark(self) -> int:
        """See GraphStore."""
        with self._db.read() as db:
            return int(db.execute("SELECT coalesce(max(seq), 0) FROM episode").fetchone()[0])

    def settled(self, mark: int) -> bool:
        """See GraphStore."""
        with self._db.read() as db:
            for part in ("e.lease = 0 AND e.batch = 0 AND e.due_at = 0", "e.lease = 0", "e.lease > 0"):
                if db.execute(f"SELECT 1 FROM episode e WHERE {part} AND e.seq <= ? LIMIT 1", (mark,)).fetchone():
                    return False
        return True

    def oldest_pending(self) -> float | None:
        """See GraphStore."""
        waiting = "e.lease = 0 AND e.batch = 0"
        queues = (
            f"{waiting} AND e.due_at = 0",
            f"{waiting} AND e.due_at > 0",
            "e.lease = 0 AND e.batch > 0",
            "e.lease > 0",
        )
        # the head of each queue: rows that were opened again are young but stand in front of older ones
        head = "SELECT min(open_since) FROM (SELECT open_since FROM episode e WHERE {} LIMIT ?)"
        with self._db.read() as db:
            heads = [db.execute(head.format(queue), (BACKLOG_SAMPLE,)).fetchone()[0] for queue in queues]
            now = self._now()
        since = min((head for head in heads if head is not None), default=None)
        return None if since is None else max(0.0, (now - since) / 1_000_000)


def _conditions(
    where: Where, after: Place | None, newest_first: bool, states: Sequence[State]
) -> tuple[str, list[Any]]:
    parts: list[str] = []
    values: list[Any] = []

    def add(condition: str, *bound: Any) -> None:
        parts.append(f" AND {condition}")
        values.extend(bound)

    if after is not None:
        order = "<" if newest_first else ">"
        add(f"(e.at, e.position, e.episode_id) {order} (?, ?, ?)", to_us(after[0]), after[1], after[2])
    if where.since is not None:
        add("e.at >= ?", to_us(where.since))
    if where.until is not None:
        add("e.at < ?", to_us(where.until))
    if where.outcomes:
        add("e.outcome IN (SELECT value FROM json_each(?))", as_list(where.outcomes))
    if where.archived is not None:
        add("e.archived = ?", int(where.archived))
    if states:
        add("e.state IN (SELECT value FROM json_each(?))", as_list(STATES.index(state) for state in states))
    for key, text in where.context.items():
        # as to_json writes them; what is found may still belong to a nested object
        name, value = _quoted(key), _quoted(text)
        add("(instr(b.context, ?) OR instr(b.context, ?))", f"{name}:{value}", f"{name}:{value[1:-1]}")
    if where.context:
        add("context_fits(b.context)")
    return "".join(parts), values


def _ordered(
    db: sqlite3.Connection, conditions: str, values: Sequence[Any], limit: int, newest_first: bool
) -> list[Episode]:
    way = "DESC" if newest_first else "ASC"
    query = (
        selecting("episode e")
        + f"WHERE e.at IS NOT NULL{conditions} ORDER BY e.at {way}, e.position {way}, e.episode_id {way} LIMIT ?"
    )
    return [to_episode(row) for row in db.execute(query, (*values, limit))]


def _by_id(
    db: sqlite3.Connection, where: Where, conditions: str, values: Sequence[Any], limit: int, newest_first: bool
) -> list[Episode]:
    """Few known episodes: fetched by id, then put in order."""
    query = selecting("json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value")
    ids = as_list(dict.fromkeys(where.episode_ids))
    rows = db.execute(f"{query} WHERE e.at IS NOT NULL{conditions}", (ids, *values))
    found = (to_episode(row) for row in rows)
    fitting = [episode for episode in found if not where.sessions or episode.session_id in where.sessions]
    return sorted(fitting, key=place_of, reverse=newest_first)[:limit]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _fits(wanted: dict[str, str]) -> Callable[[str | None], bool]:
    def fits(context: str | None) -> bool:
        texts = scalar_context(json.loads(context)) if context else {}
        return wanted.items() <= texts.items()

    return fits
