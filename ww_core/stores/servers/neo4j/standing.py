"""What the visible runs of all sessions come to."""

from __future__ import annotations

from neo4j import Transaction

from ww_core.stores.ports import Standing
from ww_core.stores.servers.neo4j.rows import Part

_SESSIONS = "MATCH (s:Session) WHERE s.ns = $ns AND s.id >= '' AND s.current > 0"
_VISIBLE = f"{_SESSIONS} MATCH (r:Run {{ns: $ns, session: s.id, version: s.current}})"
RUNS = f"{_VISIBLE} RETURN count(r), sum(coalesce(r.considered, 0)), sum(coalesce(r.noise, 0))"
LAST = f"{_VISIBLE} RETURN r.sampled, r.seconds ORDER BY r.finished_at DESC, r.ordinal DESC LIMIT 1"
CLUSTERS = f"""{_SESSIONS}
MATCH ()-[f:FOUND]->() WHERE f.ns = $ns AND f.session = s.id AND f.version = s.current AND f.change <> 'gone'
RETURN count(f), count(CASE f.change WHEN 'merged' THEN 1 END), count(CASE f.change WHEN 'split' THEN 1 END)"""


class Standings(Part):
    """Figures of all visible runs together."""

    def standing(self) -> Standing:
        """See GraphStore."""

        def work(tx: Transaction) -> Standing:
            ((sessions, considered, noise),) = tx.run(RUNS, ns=self._ns)
            last = tx.run(LAST, ns=self._ns).single()
            if last is None:
                return Standing()
            ((clusters, merged, split),) = tx.run(CLUSTERS, ns=self._ns)
            return Standing(sessions, clusters, merged, split, considered, noise, *last)

        return self._server.read(work)
