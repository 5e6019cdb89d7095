"""The embedded graph store: SQLite as record, outbox and history, for several processes on one file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ww_core.stores.embedded.graph.copies import Copies
from ww_core.stores.embedded.graph.database import Database
from ww_core.stores.embedded.graph.dirt import Dirt
from ww_core.stores.embedded.graph.episodes import Episodes
from ww_core.stores.embedded.graph.erasure import Erasure
from ww_core.stores.embedded.graph.facts import Facts
from ww_core.stores.embedded.graph.history import History
from ww_core.stores.embedded.graph.membership import Memberships
from ww_core.stores.embedded.graph.outbox import Outbox
from ww_core.stores.embedded.graph.reading import Reading
from ww_core.stores.embedded.graph.runs import Runs
from ww_core.stores.embedded.graph.standing import Standings
from ww_core.stores.embedded.graph.strength import Strengths


class SqliteGraphStore(
    Episodes, Reading, Outbox, Dirt, Strengths, Erasure, Runs, Standings, Memberships, Copies, History, Facts
):
    """Implements ``GraphStore`` on the file ``path``, which is created on first use with its directory.

    Safe with any number of threads and processes, and after fork. ``clock`` gives the time of leases, delays and
    records (timezone-aware; the system's clock by default). Raises StoreUnavailable where the file cannot be used, and
    ConfigurationError where it belongs to a newer version or another program.
    """

    def __init__(self, path: Path, *, clock: Callable[[], datetime] | None = None) -> None:
        super().__init__(Database(path), clock or _system_clock)

    def ping(self) -> None:
        """See GraphStore."""
        with self._db.read() as db:
            db.execute("SELECT 1 FROM session LIMIT 1").fetchone()

    def close(self) -> None:
        """Close the idle connections; using the store again opens it again."""
        self._db.close()


def _system_clock() -> datetime:
    return datetime.now(UTC)
