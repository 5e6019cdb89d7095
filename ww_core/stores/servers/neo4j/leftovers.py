"""Clearing away what runs that are not visible left behind, in short steps that may be cut off anywhere."""

from __future__ import annotations

from neo4j import Transaction

from ww_core.stores.ports import Dirty
from ww_core.stores.servers.neo4j import dirt, labels
from ww_core.stores.servers.neo4j.connection import Server
from ww_core.stores.servers.neo4j.rows import VISIBLE, value

STEP = 2000
"""Episodes of one transaction."""

_LEFT = "MATCH (s:Session {ns: $ns, id: $session}) WHERE s.leftovers RETURN s.current"
_BEGUN = """MATCH (e:Episode)-[m:{type}]->() WHERE m.ns = $ns AND m.session = $session
AND m.from > $current AND m.from < $upto RETURN DISTINCT e.id LIMIT $step"""
_ENDED = """MATCH (e:Episode)-[m:{type}]->() WHERE m.ns = $ns AND m.session = $session
AND m.to > $current AND m.to < $upto RETURN DISTINCT e.id LIMIT $step"""
_TYPES = ("MEMBER_OF", "NEAR")
_LOCK = "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true"
_UNSTAGE = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id})-[m:MEMBER_OF|NEAR|DUPLICATE_OF]->()
WHERE m.from > $current AND m.from < $upto DELETE m"""
_REVIVE = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id})-[m:MEMBER_OF|NEAR]->()
WHERE m.to > $current AND m.to < $upto SET m.to = null"""
_FRESH_AGAIN = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e.state = 'embedded'
MATCH (s:Session {ns: $ns, id: e.session})
WITH e WHERE NOT EXISTS { MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE m.from <= $current
  AND (m.to IS NULL OR m.to > $current) }
SET e:Fresh"""
_NO_MORE = """MATCH (s:Session {ns: $ns, id: $session}) SET s.lock = true
WITH s WHERE s.last_version < $upto
AND NOT EXISTS { MATCH (r:Run) WHERE r.ns = $ns AND r.session = s.id AND r.seq > 0 AND r.status = 'running' }
SET s.leftovers = false"""
_IDLE = """MATCH (s:Session) WHERE s.ns = $ns AND s.id {of} AND s.leftovers
AND NOT EXISTS {{ MATCH (r:Run) WHERE r.ns = $ns AND r.open = 'running' AND r.session = s.id }}
RETURN s.id, s.last_version"""
_PAGE_OF_FRESH = f"""MATCH (s:Session {{ns: $ns, id: $session}})
MATCH (e:Fresh) WHERE e.ns = $ns AND e.session = $session AND e.place > $place
WITH s, e ORDER BY e.ns, e.session, e.place LIMIT $step
RETURN e.id, e.place, EXISTS {{ MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE {VISIBLE} }}"""
_SEEN = f"""UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) SET e.lock = true
WITH e MATCH (s:Session {{ns: $ns, id: e.session}})
WITH s, e WHERE EXISTS {{ MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE {VISIBLE} }}
REMOVE e:Fresh"""


def clear_leftovers(server: Server, ns: str, session: str, *, upto: int) -> None:
    """Undo what invisible runs of versions below ``upto`` staged: safe to repeat, and to be cut off anywhere.

    Runs that start meanwhile have higher versions and are not touched. The payload of every point concerned is marked
    dirty, since such a run may have written it beforehand.
    """
    if server.read(lambda tx: value(tx, _LEFT, ns=ns, session=session)) is None:
        return

    def step(tx: Transaction) -> bool:
        current = value(tx, _LEFT, ns=ns, session=session)
        if current is None:
            return True
        bounds = {"ns": ns, "session": session, "current": current, "upto": upto}
        touched: set[str] = set()
        done = True
        for query in (_BEGUN, _ENDED):
            for relation in _TYPES:
                found = [row[0] for row in tx.run(query.format(type=relation), bounds, step=STEP)]
                touched.update(found)
                done = done and len(found) < STEP
        ids = sorted(touched)
        tx.run(_LOCK, ns=ns, ids=ids).consume()
        tx.run(_UNSTAGE, bounds, ids=ids).consume()
        tx.run(_REVIVE, bounds, ids=ids).consume()
        dirt.mark(tx, ns, Dirty.PAYLOAD, ids)
        tx.run(_FRESH_AGAIN, ns=ns, ids=ids, current=current).consume()
        if done:
            labels.drop_clusters(tx, ns, session, above=current, below=upto)
            tx.run(_NO_MORE, ns=ns, session=session, upto=upto).consume()
        return done

    while not server.write(step):
        pass


def clear_idle_leftovers(server: Server, ns: str, session_id: str | None) -> None:
    """Finish clearing where a process died over it; sessions with a run under way are left to that run."""
    query = _IDLE.format(of=">= ''" if session_id is None else "= $session")
    found = server.read(lambda tx: [tuple(row) for row in tx.run(query, ns=ns, session=session_id)])
    for session, last in found:
        clear_leftovers(server, ns, session, upto=last + 1)


def settle_fresh(server: Server, ns: str, session: str) -> None:
    """Take out of the fresh what the visible run has looked at; readers look for themselves until this is done."""
    place = ""
    while True:

        def step(tx: Transaction, place: str = place) -> list[tuple[str, str, bool]]:
            page = [tuple(row) for row in tx.run(_PAGE_OF_FRESH, ns=ns, session=session, place=place, step=STEP)]
            seen = sorted(name for name, _, visible in page if visible)
            if seen:
                tx.run(_SEEN, ns=ns, ids=seen).consume()
            return page

        page = server.write(step)
        if len(page) < STEP:
            return
        place = max(row[1] for row in page)
