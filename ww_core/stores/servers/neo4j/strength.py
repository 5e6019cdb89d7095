"""What recalls and forgetting leave in the nodes: stability, and the archive flag."""

from __future__ import annotations

from collections.abc import Sequence

from neo4j import Transaction

from ww_core.stores.ports import Dirty, Strength
from ww_core.stores.servers.neo4j import dirt
from ww_core.stores.servers.neo4j.rows import Part, usable
from ww_core.stores.values import to_us

_STRENGTHEN = """UNWIND $rows AS row MATCH (e:Episode {ns: $ns, id: row[0]}) SET e.lock = true
WITH e, row WHERE e.place IS NOT NULL AND coalesce(e.recalled_at, row[2]) <= row[2]
SET e.stability = row[1], e.recalled_at = row[2]"""
_ARCHIVE = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e WHERE e.place IS NOT NULL AND coalesce(e.archived, false) <> $archived
SET e.archived = $archived RETURN e.id"""


class Strengths(Part):
    """How well episodes are remembered."""

    def strengthen(self, changes: Sequence[Strength]) -> None:
        """See GraphStore."""
        known = set(usable(one.episode_id for one in changes))
        rows = sorted(
            [one.episode_id, one.stability, to_us(one.recalled_at)] for one in changes if one.episode_id in known
        )
        if rows:
            self._server.write(lambda tx: tx.run(_STRENGTHEN, ns=self._ns, rows=rows).consume(), again=True)

    def archive(self, episode_ids: Sequence[str], *, archived: bool = True) -> int:
        """See GraphStore."""
        ids = usable(episode_ids)

        def work(tx: Transaction) -> int:
            changed = [row[0] for row in tx.run(_ARCHIVE, ns=self._ns, ids=ids, archived=archived)]
            dirt.mark(tx, self._ns, Dirty.PAYLOAD, changed)
            return len(changed)

        return self._server.write(work) if ids else 0
