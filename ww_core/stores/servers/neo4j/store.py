"""The graph store of a Neo4j server: record, outbox and history, as a graph that people can explore."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from ww_core.config import Settings
from ww_core.stores.servers.neo4j.connection import Server, ignored
from ww_core.stores.servers.neo4j.copies import Copies
from ww_core.stores.servers.neo4j.dirt import Dirt
from ww_core.stores.servers.neo4j.episodes import Episodes
from ww_core.stores.servers.neo4j.erasure import Erasure
from ww_core.stores.servers.neo4j.facts import Facts
from ww_core.stores.servers.neo4j.history import History
from ww_core.stores.servers.neo4j.membership import Memberships
from ww_core.stores.servers.neo4j.outbox import Outbox
from ww_core.stores.servers.neo4j.reading import Reading
from ww_core.stores.servers.neo4j.runs import Runs
from ww_core.stores.servers.neo4j.standing import Standings
from ww_core.stores.servers.neo4j.strength import Strengths


class Neo4jGraphStore(
    Episodes, Reading, Outbox, Dirt, Strengths, Erasure, Runs, Standings, Memberships, Copies, History, Facts
):
    """Implements ``GraphStore`` on the server that ``settings`` names (``neo4j_uri`` and what goes with it), in the
    namespace of the settings: deployments with different namespaces share a database without seeing each other.

    Connects at the first call and prepares the schema then. Safe with any number of threads and processes, and after
    fork. ``clock`` gives the time of leases, delays and records (timezone-aware); without it the server's own clock
    does. Raises StoreUnavailable where the server cannot be reached, and ConfigurationError where it refuses the user
    or holds the schema of a newer version. ``on_use`` is told the share of ``neo4j_pool_size`` in use (0 to 1) whenever
    a connection is taken, waited for or given back.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], datetime] | None = None,
        on_use: Callable[[float], None] = ignored,
    ) -> None:
        super().__init__(Server(settings, on_use=on_use), settings.namespace, clock)

    def ping(self) -> None:
        """See GraphStore."""
        self._server.read(lambda tx: tx.run("RETURN 1").consume())

    def close(self) -> None:
        """Close the connections; using the store again opens them again."""
        self._server.close()
