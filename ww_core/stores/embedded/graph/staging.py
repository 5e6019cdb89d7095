"""What a run puts down before it is visible, in statements for many episodes each.

While SQLite is at a statement, Python is free for the run's other thread. Row by row the two would wait for each other
thousands of times.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain

from ww_core.stores.embedded.graph.rows import EMBEDDED, as_list
from ww_core.stores.ports import Membership

ROWS = 5000
"""Of one statement, with five parameters each: SQLite takes up to 32 766."""
_ROW = "(?, ?, ?, ?, ?)"

_TABLE = """CREATE TEMP TABLE IF NOT EXISTS placing (seq INTEGER PRIMARY KEY, cluster INTEGER, nearest INTEGER,
  distance REAL, duplicate_of INTEGER, begun INTEGER, ended INTEGER, same INTEGER)"""
# A row of a version that ended with the run being staged is still the one to compare with.
_PLACE = """INSERT INTO temp.placing SELECT e.seq, v.column2, v.column3, v.column4, o.seq, m.from_version, m.to_version,
    m.cluster IS v.column2 AND m.nearest IS v.column3 AND m.distance IS v.column4 AND m.duplicate_of IS o.seq
  FROM (VALUES {rows}) v CROSS JOIN episode e ON e.episode_id = v.column1
  LEFT JOIN episode o ON o.episode_id = v.column5 AND o.at IS NOT NULL
  LEFT JOIN membership m ON m.session = e.session AND m.seq = e.seq AND m.from_version <= {current}
    AND (m.to_version IS NULL OR m.to_version > {current})
  WHERE e.session = {session} AND e.state = {state}"""
# What is the same may have been staged otherwise a moment ago.
_STANDS = """UPDATE membership SET to_version = NULL WHERE session = :session
  AND (seq, from_version) IN (SELECT seq, begun FROM temp.placing WHERE same AND ended = :version)"""
_UNSTAGE = """DELETE FROM membership WHERE session = :session AND from_version = :version
  AND seq IN (SELECT seq FROM temp.placing WHERE same AND ended = :version)"""
_END = """UPDATE membership SET to_version = :version WHERE session = :session
  AND (seq, from_version) IN (SELECT seq, begun FROM temp.placing WHERE NOT same AND ended IS NOT :version)"""
_STAGE = """INSERT INTO membership (session, seq, from_version, cluster, nearest, distance, duplicate_of)
  SELECT :session, seq, :version, cluster, nearest, distance, duplicate_of FROM temp.placing
  WHERE begun IS NULL OR NOT same ORDER BY seq
  ON CONFLICT (session, seq, from_version) DO UPDATE SET cluster = excluded.cluster,
  nearest = excluded.nearest, distance = excluded.distance, duplicate_of = excluded.duplicate_of"""


def stage(
    db: sqlite3.Connection, memberships: Sequence[Membership], *, session: int, version: int, current: int
) -> None:
    """Put memberships down for a run of that ``version``, while ``current`` is visible. Of an episode that is named
    twice the last one counts; one that is not embedded, or of another session, is left out."""
    wanted = list({m.episode_id: m for m in memberships}.values())
    keys: dict[str | None, int | None] = {None: None}
    keys.update(cluster_keys(db, {c for m in wanted for c in (m.cluster_id, m.nearest) if c is not None}))
    db.execute(_TABLE)
    db.execute("DELETE FROM temp.placing")
    known = {"current": int(current), "session": int(session), "state": EMBEDDED}
    for start in range(0, len(wanted), ROWS):
        part = wanted[start : start + ROWS]
        rows = ((m.episode_id, keys[m.cluster_id], keys[m.nearest], m.distance, m.duplicate_of) for m in part)
        query = _PLACE.format(rows=", ".join([_ROW] * len(part)), **known)
        db.execute(query, list(chain.from_iterable(rows)))
    of_run = {"session": session, "version": version}
    for statement in (_STANDS, _UNSTAGE, _END, _STAGE):
        db.execute(statement, of_run)
    db.execute("DELETE FROM temp.placing")


def cluster_keys(db: sqlite3.Connection, cluster_ids: set[str]) -> dict[str, int]:
    """The numbers of cluster ids, given to new ones."""
    names = as_list(sorted(cluster_ids))
    db.execute("INSERT OR IGNORE INTO cluster_name (cluster_id) SELECT value FROM json_each(?) ORDER BY key", (names,))
    query = """SELECT c.cluster_id, c.cluster FROM json_each(?) j
      CROSS JOIN cluster_name c ON c.cluster_id = j.value"""
    return dict(db.execute(query, (names,)).fetchall())
