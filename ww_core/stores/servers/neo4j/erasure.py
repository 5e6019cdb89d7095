"""Erasing episodes for good."""

from __future__ import annotations

from collections.abc import Sequence

from neo4j import Transaction

from ww_core.stores.ports import Dirty
from ww_core.stores.servers.neo4j import dirt, labels, runs
from ww_core.stores.servers.neo4j.membership import forget_memberships
from ww_core.stores.servers.neo4j.rows import Part, usable

STEP = 1000
"""Episodes of one transaction."""

_LIVING = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e.place IS NOT NULL
RETURN coalesce(e.seq, e.t), e.id"""
_LIVING_OF_SESSION = """MATCH (e:Episode) WHERE e.ns = $ns AND e.session = $session AND e.place > ''
RETURN coalesce(e.seq, e.t), e.id"""
_LOCK = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e WHERE e.place IS NOT NULL RETURN e.id"""
_SESSIONS = (
    "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) RETURN DISTINCT e.session AS session ORDER BY session"
)
# What is left: the id, the session, when it was stored and its generation. `old_place` lets pages that ended with the
# episode go on, until its vectors are gone.
_ERASE = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id})
OPTIONAL MATCH (e)-[r]-() DELETE r
WITH DISTINCT e
WITH e, e.place AS place, e.generation AS generation, coalesce(e.seq, e.t) AS seq, e.session AS session, e.id AS id,
  e.stored_at AS stored_at
REMOVE e:Fresh, e:Dead
SET e = {ns: $ns, id: id, session: session, seq: seq, generation: generation, stored_at: stored_at,
  state: 'erased', old_place: place}
SET e:Erased, e:Unfinished"""
_UNFINISHED = """MATCH (e:Unfinished) WHERE e.ns = $ns AND e.seq > 0
RETURN e.id ORDER BY e.ns, e.seq LIMIT $limit"""
_FINISH = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e:Unfinished
REMOVE e:Unfinished SET e.old_place = null"""


class Erasure(Part):
    """Tombstones."""

    def tombstone(self, *, episode_ids: Sequence[str] = (), session_id: str | None = None) -> tuple[list[str], int]:
        """See GraphStore. In steps of some thousand episodes: a session of a million must not hold writers up."""
        ids = usable(episode_ids)

        def living(tx: Transaction) -> list[str]:
            found = {tuple(row) for row in tx.run(_LIVING, ns=self._ns, ids=ids)} if ids else set()
            if session_id is not None and usable([session_id]):
                found.update(tuple(row) for row in tx.run(_LIVING_OF_SESSION, ns=self._ns, session=session_id))
            return [name for _, name in sorted(found)]

        candidates = self._server.read(living)
        erased: list[str] = []
        memberships = 0
        for start in range(0, len(candidates), STEP):
            step = candidates[start : start + STEP]
            names, removed = self._server.write(lambda tx, step=step: self._erase(tx, step))  # type: ignore[misc]
            erased += names
            memberships += removed
        return erased, memberships

    def unfinished_tombstones(self, limit: int) -> list[str]:
        """See GraphStore. In the order in which the episodes were stored."""
        rows = self._server.read(lambda tx: list(tx.run(_UNFINISHED, ns=self._ns, limit=limit)))
        return [row[0] for row in rows]

    def finish_tombstones(self, episode_ids: Sequence[str]) -> None:
        """See GraphStore."""
        ids = usable(episode_ids)
        if ids:
            self._server.write(lambda tx: tx.run(_FINISH, ns=self._ns, ids=ids).consume(), again=True)

    def _erase(self, tx: Transaction, candidates: Sequence[str]) -> tuple[list[str], int]:
        # a run that is under way has read the texts, and would publish labels made of them: it begins anew
        for (session,) in list(tx.run(_SESSIONS, ns=self._ns, ids=list(candidates))):
            tx.run(runs.LOCK_SESSION, ns=self._ns, session=session).consume()
            tx.run(runs.VOID, ns=self._ns, session=session).consume()
        alive = {row[0] for row in tx.run(_LOCK, ns=self._ns, ids=sorted(candidates))}
        ids = sorted(alive)
        if not ids:
            return [], 0
        labels.wipe_words(tx, self._ns, ids)
        memberships = forget_memberships(tx, self._ns, ids)
        # their context vectors were made of what is erased
        dirt.mark(tx, self._ns, Dirty.CONTEXT, set(dirt.neighbours_of(tx, self._ns, ids)) - alive)
        tx.run(_ERASE, ns=self._ns, ids=ids).consume()
        return [name for name in candidates if name in alive], memberships
