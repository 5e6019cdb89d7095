"""What stands beside an episode in its session's order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import TypeAlias

from ww_core.stores.embedded.graph.rows import as_list

Place: TypeAlias = tuple[int, int, int, str]
"""Session key, microseconds, position and episode id."""
Beside: TypeAlias = tuple[int, str, int]
"""Row, episode id and state."""

_PLACES = """SELECT e.session, e.at, e.position, e.episode_id FROM json_each(?) j
  CROSS JOIN episode e ON e.{key} = j.value WHERE e.at IS NOT NULL"""
# One place at a time, as values: between two tables SQLite narrows the index by the timestamp alone, and a batch, whose
# rows may all bear one, would be read whole for each of them. Both sides in one statement take two thirds of the time
# of two.
_BESIDE = " UNION ALL ".join(
    f"""SELECT * FROM (SELECT {side}, p.seq, p.episode_id, p.state FROM episode p
      WHERE p.session = ?1 AND p.at IS NOT NULL AND (p.at, p.position, p.episode_id) {beyond} (?2, ?3, ?4)
      ORDER BY p.at {way}, p.position {way}, p.episode_id {way} LIMIT ?5)"""
    for side, beyond, way in ((0, "<", "DESC"), (1, ">", "ASC"))
)


def places(db: sqlite3.Connection, key: str, values: Iterable[str] | Iterable[int]) -> list[Place]:
    """Where the episodes stand whose column ``key`` is among the values; erased ones stand nowhere."""
    return db.execute(_PLACES.format(key=key), (as_list(values),)).fetchall()


def beside(db: sqlite3.Connection, place: Place, reach: int) -> tuple[list[Beside], list[Beside]]:
    """Up to ``reach`` rows before the place and behind it, the nearest first."""
    sides: tuple[list[Beside], list[Beside]] = ([], [])
    for side, seq, episode_id, state in db.execute(_BESIDE, (*place, reach)):
        sides[side].append((seq, episode_id, state))
    return sides
