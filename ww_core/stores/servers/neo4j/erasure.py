"""Erasing episodes for good."""

from __future__ import annotations

from collections.abc import Sequence

from neo4j import Transaction

from ww_core.stores.ports import Dirty
from ww_core.stores.servers.neo4j import dirt, labels, runs
from ww_core.stores.servers.neo4j.episodes import SHARDS
from ww_core.stores.servers.neo4j.membership import forget_memberships
from ww_core.stores.servers.neo4j.rows import Part, usable, value

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

NAMELESS = ""
"""The session of the tombstones whose session was erased whole: no living one has an empty name."""
_LIVES = "EXISTS { MATCH (e:Episode) WHERE e.ns = $ns AND e.session = $session AND e.place > '' }"
_LEAVE = f"""MATCH (s:Session {{ns: $ns, id: $session}}) WHERE NOT {_LIVES}
SET s:Leaving, s.current = 0, s.leftovers = false RETURN s.id"""
_DROP_RUNS = "MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0 DETACH DELETE r"
_DROP_CLUSTERS = "MATCH (c:Cluster) WHERE c.ns = $ns AND c.session = $session DETACH DELETE c"
_LEAVING = "MATCH (s:Leaving) WHERE s.ns = $ns AND s.id > '' RETURN s.id ORDER BY s.ns, s.id LIMIT $limit"
_STAY = "MATCH (s:Session {ns: $ns, id: $session}) REMOVE s:Leaving"
_LOCK_COUNTERS = f"""UNWIND range(0, {SHARDS - 1}) AS shard
MERGE (c:Counter {{ns: $ns, session: $session, shard: shard}})
  ON CREATE SET c.acknowledged = 0, c.last = 0
SET c.lock = true RETURN sum(c.acknowledged), max(c.last)"""
_TOMBSTONES = "MATCH (e:Erased) WHERE e.ns = $ns AND e.session = $session RETURN e.id LIMIT $limit"
_UNNAME = "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.session = $nameless"
_COUNT_OUT = "MATCH (c:Counter {ns: $ns, session: $session, shard: 0}) SET c.acknowledged = c.acknowledged - $number"
_COUNT_IN = """MERGE (c:Counter {ns: $ns, session: $nameless, shard: 0}) ON CREATE SET c.acknowledged = 0, c.last = 0
SET c.lock = true
SET c.acknowledged = c.acknowledged + $number, c.last = CASE WHEN c.last > $last THEN c.last ELSE $last END"""
_DROP_SESSION = """MATCH (c:Counter) WHERE c.ns = $ns AND c.session = $session AND c.shard >= 0 DELETE c
WITH DISTINCT true AS done MATCH (s:Session {ns: $ns, id: $session}) DETACH DELETE s"""


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
        if session_id is not None and usable([session_id]):
            self._server.write(lambda tx: self._leave(tx, session_id), again=True)
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

    def unfinished_sessions(self, limit: int) -> list[str]:
        """See GraphStore."""
        rows = self._server.read(lambda tx: list(tx.run(_LEAVING, ns=self._ns, limit=limit)))
        return [row[0] for row in rows]

    def finish_session(self, session_id: str) -> None:
        """See GraphStore. In steps, each of which moves so many tombstones and their share of the count."""
        more = bool(usable([session_id]))
        while more:
            more = self._server.write(lambda tx: self._unname(tx, session_id))

    def _leave(self, tx: Transaction, session: str) -> None:
        """Take leave of a session without episodes: its runs and what they found go at once, its name when the vectors
        have gone."""
        tx.run(runs.LOCK_SESSION, ns=self._ns, session=session).consume()
        if value(tx, _LEAVE, ns=self._ns, session=session) is not None:
            for query in (_DROP_RUNS, _DROP_CLUSTERS):
                tx.run(query, ns=self._ns, session=session).consume()

    def _unname(self, tx: Transaction, session: str) -> bool:
        """Whether there is more to do."""
        name = {"ns": self._ns, "session": session}
        if tx.run(runs.LOCK_SESSION, name).single() is None:
            return False
        # who stores in the session waits for one of these, and finds either the session or that it has gone
        count, last = tx.run(_LOCK_COUNTERS, name).single(strict=True)
        if value(tx, f"RETURN {_LIVES}", **name):
            tx.run(_STAY, name).consume()
            return False
        ids = sorted(row[0] for row in tx.run(_TOMBSTONES, name, limit=STEP))
        tx.run(_UNNAME, ns=self._ns, ids=ids, nameless=NAMELESS).consume()
        more = len(ids) == STEP
        # the last step takes the whole count, lest a row that vanished stops showing
        number = len(ids) if more else count
        tx.run(_COUNT_OUT, name, number=number).consume()
        tx.run(_COUNT_IN, ns=self._ns, nameless=NAMELESS, number=number, last=last).consume()
        if not more:
            tx.run(_DROP_SESSION, name).consume()
        return more

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
