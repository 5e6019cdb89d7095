"""Where runs put episodes: versioned by the interval of runs in which a row is visible."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence

from ww_core.models import Fold
from ww_core.stores.embedded.graph import labels
from ww_core.stores.embedded.graph.copies import fold_orphans
from ww_core.stores.embedded.graph.leftovers import clear_idle_leftovers
from ww_core.stores.embedded.graph.rows import VISIBLE, Part, as_list, session_key
from ww_core.stores.embedded.graph.staging import stage
from ww_core.stores.ports import Fresh, Membership, Moved, Place
from ww_core.stores.values import to_time, to_us

_MOVED = """SELECT e.episode_id, coalesce(c.cluster_id, n.cluster_id), coalesce(bc.cluster_id, bn.cluster_id)
  FROM run r CROSS JOIN membership m ON m.session = r.session AND m.from_version = r.version
  JOIN episode e ON e.seq = m.seq
  LEFT JOIN membership b ON b.session = m.session AND b.seq = m.seq AND b.from_version <= r.base
    AND (b.to_version IS NULL OR b.to_version > r.base)
  LEFT JOIN cluster_name c ON c.cluster = m.cluster LEFT JOIN cluster_name n ON n.cluster = m.nearest
  LEFT JOIN cluster_name bc ON bc.cluster = b.cluster LEFT JOIN cluster_name bn ON bn.cluster = b.nearest
  WHERE r.run_id = ? AND r.base IS NOT NULL"""
_FOLDS = f"""SELECT o.episode_id, count(*) + 1, min(o.at, min(e.at)), max(o.at, max(e.at))
  FROM json_each(?) j CROSS JOIN episode o ON o.episode_id = j.value
  CROSS JOIN membership m ON m.duplicate_of = o.seq
  CROSS JOIN session s ON s.session = m.session AND {VISIBLE}
  CROSS JOIN episode e ON e.seq = m.seq AND e.at IS NOT NULL
  GROUP BY o.seq"""
_UNSEEN = f"""NOT EXISTS (SELECT 1 FROM membership m JOIN session s ON s.session = m.session
  WHERE m.session = f.session AND m.seq = f.seq AND {VISIBLE})"""


class Memberships(Part):
    """What runs write, and what they have not looked at yet."""

    def stage(self, run_id: str, *, token: str, memberships: Sequence[Membership]) -> bool:
        """See GraphStore. Episodes that were erased, or whose content changed, meanwhile are left out."""
        with self._db.write() as db:
            held = db.execute(
                """SELECT r.session, r.version, s.current FROM run r JOIN session s ON s.session = r.session
                  WHERE r.run_id = ? AND r.token = ? AND r.status = 'running'""",
                (run_id, token),
            ).fetchone()
            if held is None:
                return False
            stage(db, memberships, session=held[0], version=held[1], current=held[2])
        return True

    def memberships(
        self, session_id: str, *, after: str | None = None, limit: int = 1000, cluster_id: str | None = None
    ) -> list[Membership]:
        """See GraphStore."""
        conditions, values = "", [session_id, after]
        if cluster_id is not None:
            conditions = (
                "AND +m.session = s.session AND m.cluster = (SELECT cluster FROM cluster_name WHERE cluster_id = ?)"
            )
            values.append(cluster_id)
        query = f"""SELECT e.episode_id, c.cluster_id, n.cluster_id, m.distance, d.episode_id
          FROM session s CROSS JOIN membership m ON m.session = s.session AND {VISIBLE}
          JOIN episode e ON e.seq = m.seq
          LEFT JOIN cluster_name c ON c.cluster = m.cluster LEFT JOIN cluster_name n ON n.cluster = m.nearest
          LEFT JOIN episode d ON d.seq = m.duplicate_of
          WHERE s.session_id = ? AND m.seq > coalesce((SELECT seq FROM episode WHERE episode_id = ?), 0) {conditions}
          ORDER BY m.seq LIMIT ?"""
        with self._db.read() as db:
            return [Membership(*row) for row in db.execute(query, (*values, limit))]

    def moved(self, run_id: str) -> list[Moved]:
        """See GraphStore."""
        with self._db.read() as db:
            return [Moved(*row) for row in db.execute(_MOVED, (run_id,))]

    def folds(self, episode_ids: Sequence[str]) -> dict[str, Fold]:
        """See GraphStore."""
        with self._db.read() as db:
            rows = db.execute(_FOLDS, (as_list(episode_ids),))
            return {name: Fold(count, to_time(first), to_time(last)) for name, count, first, last in rows}

    def unconsolidated(self, session_id: str, *, limit: int, after: Place | None = None) -> list[Fresh]:
        """See GraphStore."""
        clear_idle_leftovers(self._db, session_id)
        start = (to_us(after[0]), after[1], after[2]) if after is not None else (-(2**62), 0, "")
        query = f"""SELECT g.episode_id, b.content, g.at, g.position, e.generation, e.windows
          FROM (SELECT * FROM fresh f WHERE f.session = ? AND (f.at, f.position, f.episode_id) > (?, ?, ?)
            AND {_UNSEEN} ORDER BY f.at, f.position, f.episode_id LIMIT ?) g
          CROSS JOIN episode e ON e.seq = g.seq CROSS JOIN body b ON b.body = e.body
          ORDER BY g.at, g.position, g.episode_id"""
        with self._db.read() as db:
            rows = db.execute(query, (session_key(db, session_id), *start, limit))
            return list(map(Fresh._make, rows))

    def count_unconsolidated(self, session_id: str | None = None) -> dict[str, int]:
        """See GraphStore. Sessions with nothing new are left out."""
        clear_idle_leftovers(self._db, session_id)
        query = f"""SELECT t.session_id, count(*) FROM fresh f JOIN session t ON t.session = f.session
          WHERE {_UNSEEN} {"" if session_id is None else "AND t.session_id = ?"} GROUP BY f.session"""
        with self._db.read() as db:
            return dict(db.execute(query, () if session_id is None else (session_id,)).fetchall())


def forget_memberships(db: sqlite3.Connection, seqs: Sequence[int]) -> int:
    """Remove episodes from every run, kept ones too; how many of the rows were visible.

    The clusters they were in shrink; those that become empty go.
    """
    rows = db.execute(
        f"""SELECT m.session, m.cluster, m.from_version, m.to_version, m.seq, {VISIBLE}
          FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value
          JOIN membership m ON m.session = e.session AND m.seq = e.seq JOIN session s ON s.session = m.session""",
        (as_list(seqs),),
    ).fetchall()
    db.executemany("DELETE FROM membership WHERE session = ? AND seq = ?", {(row[0], row[4]) for row in rows})
    shrunk = Counter(row[:4] for row in rows if row[1] is not None)
    db.executemany(
        """UPDATE cluster SET size = size - ? WHERE session = ? AND cluster = ? AND change <> 'gone'
          AND version >= ? AND version < coalesce(?, 9223372036854775807)""",
        [(number, session, cluster, first, end) for (session, cluster, first, end), number in shrunk.items()],
    )
    emptied = {(session, cluster) for session, cluster, _, _ in shrunk}
    for session, cluster in emptied:
        labels.drop_clusters(db, "session = ? AND cluster = ? AND size <= 0 AND change <> 'gone'", (session, cluster))
    fold_orphans(db, seqs)
    db.executemany("UPDATE cluster SET medoid = NULL WHERE medoid = ?", [(seq,) for seq in seqs])
    return sum(row[5] for row in rows)
