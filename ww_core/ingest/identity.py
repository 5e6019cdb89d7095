"""Give a line without an id one that a second run over the same file finds again."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

ID_BYTES = 16
_SEPARATOR = b"\x1f"


class LineIds:
    """Ids derived from (session, timestamp as written, content, occurrence of those three in the file).

    One instance a file. A line that moves keeps its id, and a grown file repeats the ids of its old lines; equal lines
    count up. Occurrences are counted in SQLite's own temporary database, which goes to disk when it grows: memory
    stays bounded whatever the file holds. Not thread-safe.
    """

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-16384;"
            "CREATE TABLE seen (digest BLOB PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID; BEGIN"
        )

    def of(self, *, session_id: str, timestamp: str | None, content: str) -> str:
        """The id of the next line that holds these three."""
        # Lengths make the parts unambiguous; None and "" differ.
        parts = (session_id, "" if timestamp is None else f"@{timestamp}", content.strip())
        raw = [part.encode("utf-8", "surrogatepass") for part in parts]
        digest = blake2b(_SEPARATOR.join(b"%d:%b" % (len(part), part) for part in raw), digest_size=ID_BYTES).digest()
        row = self._database.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT (digest) DO UPDATE SET n = n + 1 RETURNING n", (digest,)
        ).fetchone()
        occurrence: int = row[0]
        return blake2b(digest + b"%d" % occurrence, digest_size=ID_BYTES).hexdigest()

    def close(self) -> None:
        """Drop the counts."""
        self._database.close()
