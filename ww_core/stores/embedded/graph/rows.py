"""How rows become episodes, and the small helpers every part of the graph store shares."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from ww_core.models import Episode, State
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.values import to_time, to_time_or_none, to_us

PENDING, LEASED, EMBEDDED, DEAD, ERASED = range(5)
STATES: tuple[State, ...] = (State.PENDING, State.LEASED, State.EMBEDDED, State.DEAD, State.ERASED)
"""The state of each number in the column ``episode.state``."""

VISIBLE = "m.from_version <= s.current AND (m.to_version IS NULL OR m.to_version > s.current)"
"""Membership ``m`` is part of the current run of session ``s``."""

_COLUMNS = """SELECT e.episode_id, s.session_id, e.at, e.position, b.content, b.context, e.outcome, e.importance,
  e.state, e.stored_at, e.embedded_at, e.generation, e.windows, c.cluster_id, n.cluster_id, d.episode_id,
  e.archived, e.stability, e.recalled_at, e.seq, e.deliveries"""
_JOINS = f"""JOIN session s ON s.session = e.session JOIN body b ON b.body = e.body
  LEFT JOIN membership m ON m.session = e.session AND m.seq = e.seq AND {VISIBLE}
  LEFT JOIN cluster_name c ON c.cluster = m.cluster
  LEFT JOIN cluster_name n ON n.cluster = m.nearest
  LEFT JOIN episode d ON d.seq = m.duplicate_of"""

SEQ, DELIVERIES = 19, 20
"""Columns behind those of the episode itself."""


def selecting(source: str, columns: str = "") -> str:
    """A SELECT of episodes from ``source``, which binds ``e``; ``columns`` come behind the others."""
    return f"{_COLUMNS} {columns} FROM {source} {_JOINS} "


class Part:
    """What every part of the graph store holds."""

    def __init__(self, database: Database, clock: Callable[[], datetime]) -> None:
        self._db = database
        self._clock = clock

    def _now(self) -> int:
        return to_us(self._clock())


def as_list(values: Iterable[str] | Iterable[int]) -> str:
    """Values for ``json_each(?)``: any number of them in one parameter."""
    return json.dumps(list(values))


def to_episode(row: Sequence[Any]) -> Episode:
    """An episode from a row of ``selecting``."""
    return Episode(
        content=row[4],
        episode_id=row[0],
        session_id=row[1],
        timestamp=to_time(row[2]),
        context=json.loads(row[5]) if row[5] else {},
        outcome=row[6],
        importance=row[7],
        position=row[3],
        state=STATES[row[8]],
        stored_at=to_time(row[9]),
        embedded_at=to_time_or_none(row[10]),
        generation=row[11],
        windows=row[12],
        cluster_id=row[13],
        nearest=row[14],
        duplicate_of=row[15],
        archived=bool(row[16]),
        stability=row[17],
        last_recalled_at=to_time_or_none(row[18]),
    )


def next_value(db: sqlite3.Connection, name: str) -> int:
    """The next number of a counter that never gives one twice, from 1."""
    row = db.execute(
        "INSERT INTO counter VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value", (name,)
    ).fetchone()
    return int(row[0])


def session_key(db: sqlite3.Connection, session_id: str) -> int | None:
    """The number of a session, None where nothing was ever stored in it."""
    row = db.execute("SELECT session FROM session WHERE session_id = ?", (session_id,)).fetchone()
    return None if row is None else int(row[0])


def find(db: sqlite3.Connection, episode_ids: Iterable[str]) -> list[int]:
    """The numbers of the ids that exist, erased or not, ascending."""
    query = "SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value ORDER BY e.seq"
    return [seq for (seq,) in db.execute(query, (as_list(episode_ids),))]


def append_body(db: sqlite3.Connection, content: str, context: str | None) -> int:
    """Keep a text; the number of its row."""
    query = "INSERT INTO body SELECT coalesce(max(body), 0) + 1, ?, ? FROM body RETURNING body"
    return int(db.execute(query, (content, context)).fetchone()[0])


def empty_bodies(db: sqlite3.Connection, bodies: Iterable[int]) -> None:
    """Wipe texts. The rows stay: deleting them would make SQLite move other texts about."""
    db.executemany("UPDATE body SET content = NULL, context = NULL WHERE body = ?", [(body,) for body in bodies])
