"""Dirty flags: which embedded episodes have derived data that no longer matches the record."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from ww_core.stores.embedded.graph import order
from ww_core.stores.embedded.graph.rows import EMBEDDED, SEQ, Part, as_list, next_value, selecting, to_episode
from ww_core.stores.ports import CONTEXT_NEIGHBOURS, Dirty, DirtyRow

# While a run stages a new place for an episode, its payload follows the run; the flag waits for the end of the run.
_STAGED = """EXISTS (SELECT 1 FROM episode q JOIN session t ON t.session = q.session
  JOIN membership g ON g.session = q.session AND g.seq = q.seq AND g.from_version > t.current
  WHERE q.seq = dirty.seq AND t.leftovers)"""
_DIRTY = selecting(
    f"""(SELECT seq, version FROM dirty WHERE kind = ?1 AND (?1 <> 'payload' OR NOT {_STAGED})
      AND (SELECT state FROM episode WHERE seq = dirty.seq) = 2 ORDER BY version, seq LIMIT ?2) f
      CROSS JOIN episode e ON e.seq = f.seq""",
    ", f.version",
)


class Dirt(Part):
    """Work that is due on derived data."""

    def dirty(self, kind: Dirty, limit: int) -> list[DirtyRow]:
        """See GraphStore. Oldest change first."""
        with self._db.read() as db:
            if db.execute("SELECT 1 FROM dirty WHERE kind = ? LIMIT 1", (kind.value,)).fetchone() is None:
                return []
            return [DirtyRow(to_episode(row), row[SEQ + 2]) for row in db.execute(_DIRTY, (kind.value, limit))]

    def clear_dirty(self, kind: Dirty, versions: Mapping[str, int]) -> None:
        """See GraphStore."""
        if not versions:
            return
        with self._db.write() as db:
            query = "SELECT e.seq, e.episode_id FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value"
            found = db.execute(query, (as_list(versions),)).fetchall()
            db.executemany(
                f"""DELETE FROM dirty WHERE kind = ?1 AND seq = ?2 AND version = ?3
                  AND (?1 <> 'payload' OR NOT {_STAGED})""",
                [(kind.value, seq, versions[episode_id]) for seq, episode_id in found],
            )

    def mark_payload(self, episode_ids: Sequence[str]) -> None:
        """See GraphStore."""
        query = """SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value WHERE e.state = 2"""
        with self._db.write() as db:
            mark(db, Dirty.PAYLOAD, [seq for (seq,) in db.execute(query, (as_list(episode_ids),)).fetchall()])


def mark(db: sqlite3.Connection, kind: Dirty, seqs: Iterable[int]) -> None:
    """Flag rows. The version is new even where the flag was set: a refresh that is under way does not clear it."""
    version = next_value(db, "dirty")
    db.executemany(
        "INSERT INTO dirty VALUES (?, ?, ?) ON CONFLICT (kind, seq) DO UPDATE SET version = excluded.version",
        [(kind.value, seq, version) for seq in seqs],
    )


def unmark(db: sqlite3.Connection, seqs: Iterable[int]) -> None:
    """Drop all flags of rows."""
    db.executemany(
        "DELETE FROM dirty WHERE kind = ? AND seq = ?", [(kind.value, seq) for seq in seqs for kind in Dirty]
    )


def neighbours_of(db: sqlite3.Connection, seqs: Iterable[int]) -> list[int]:
    """The embedded rows whose context the given rows are part of."""
    beside = order.around(db, "seq", seqs, CONTEXT_NEIGHBOURS).values()
    found = {seq for neighbours in beside for seq in neighbours if seq is not None}
    query = "SELECT e.seq FROM json_each(?) j CROSS JOIN episode e ON e.seq = j.value WHERE e.state = ? ORDER BY e.seq"
    return [seq for (seq,) in db.execute(query, (as_list(found), EMBEDDED))]
