"""Small durable facts by name: beat ticks, sweep cursors, rolling figures."""

from __future__ import annotations

from ww_core.stores.embedded.graph.rows import Part


class Facts(Part):
    """A table of texts."""

    def get_fact(self, key: str) -> str | None:
        """See GraphStore."""
        with self._db.read() as db:
            row = db.execute("SELECT value FROM fact WHERE key = ?", (key,)).fetchone()
            return None if row is None else str(row[0])

    def put_fact(self, key: str, value: str) -> None:
        """See GraphStore."""
        with self._db.write() as db:
            query = "INSERT INTO fact VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            db.execute(query, (key, value))

    def facts(self, prefix: str, *, limit: int = 100) -> dict[str, str]:
        """See GraphStore."""
        query = "SELECT key, value FROM fact WHERE key >= ?1 AND substr(key, 1, length(?1)) = ?1 ORDER BY key LIMIT ?2"
        with self._db.read() as db:
            return dict(db.execute(query, (prefix, limit)).fetchall())

    def drop_fact(self, key: str) -> None:
        """See GraphStore."""
        with self._db.write() as db:
            db.execute("DELETE FROM fact WHERE key = ?", (key,))
