"""Where runs put episodes: relationships that are versioned by the interval of runs in which they are visible.

``(:Episode)-[:MEMBER_OF]->(:Cluster)`` for members, ``(:Episode)-[:NEAR]->(:Cluster)`` for episodes that belong to no
cluster (to the session where there is no cluster at all), and ``-[:DUPLICATE_OF]->`` to the original; ``from`` is the
version that brought it, ``to`` the first one that no longer sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neo4j import Transaction

from ww_core.models import Fold
from ww_core.stores.ports import Fresh, Membership, Moved, Place
from ww_core.stores.servers.neo4j import copies, labels
from ww_core.stores.servers.neo4j.leftovers import clear_idle_leftovers
from ww_core.stores.servers.neo4j.rows import (
    CLUSTER_OF,
    NEAREST_OF,
    ORIGINAL_OF,
    VISIBLE,
    Part,
    place_after,
    usable,
    value,
)
from ww_core.stores.values import to_time

_HELD = """MATCH (r:Run {ns: $ns, id: $run}) SET r.lock = true
WITH r WHERE r.token = $token AND r.status = 'running'
MATCH (s:Session {ns: $ns, id: r.session}) RETURN r.session, r.version, s.current"""
_LOCK = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e WHERE e.state = 'embedded' AND e.session = $session
RETURN e.id, CASE WHEN e.digest IS NULL THEN e.content END"""
# A row of a version that ended with the run being staged is still the one to compare with.
_STANDING = f"""UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}})-[m:MEMBER_OF|NEAR]->(c)
WHERE m.from = $version OR m.from <= $current AND (m.to IS NULL OR m.to > $current)
RETURN e.id, m.from, m.to, {CLUSTER_OF}, {NEAREST_OF}, m.distance, {ORIGINAL_OF}"""
_ORIGINALS = "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e.place IS NOT NULL RETURN e.id"
_UNSTAGE = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id})-[m:MEMBER_OF|NEAR|DUPLICATE_OF]->()
WHERE m.from = $version DELETE m"""
_END = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id})-[m:MEMBER_OF|NEAR]->()
WHERE m.from <= $current AND (m.to IS NULL OR m.to > $current) SET m.to = $to"""
_CLUSTERS = "UNWIND $ids AS id MERGE (c:Cluster {ns: $ns, id: id}) ON CREATE SET c.session = $session"
_STAGE = """UNWIND $rows AS row MATCH (e:Episode {{ns: $ns, id: row[0]}}) MATCH (c:{target} {{ns: $ns, id: row[1]}})
CREATE (e)-[m:{type} {{ns: $ns, session: $session, from: $version, distance: row[2], nearest: row[3]}}]->(c)"""
_STAGE_DUPLICATES = """UNWIND $rows AS row
MATCH (e:Episode {ns: $ns, id: row[0]}) MATCH (o:Episode {ns: $ns, id: row[1]})
CREATE (e)-[:DUPLICATE_OF {from: $version}]->(o)"""

_MEMBERSHIP = f"RETURN e.id, {CLUSTER_OF}, {NEAREST_OF}, m.distance, {ORIGINAL_OF}"
_OF_SESSION = f"""MATCH (s:Session {{ns: $ns, id: $session}})
CALL (s) {{
  MATCH (e:Episode) WHERE e.ns = $ns AND e.session = s.id AND e.place > $place
  MATCH (e)-[m:MEMBER_OF|NEAR]->(c) WHERE {VISIBLE}
  RETURN e, m, c ORDER BY e.ns, e.session, e.place LIMIT $limit
}} {_MEMBERSHIP}, e.place"""
_OF_CLUSTER = f"""MATCH (s:Session {{ns: $ns, id: $session}}) MATCH (c:Cluster {{ns: $ns, id: $cluster}})
MATCH (e:Episode)-[m:MEMBER_OF]->(c) WHERE {VISIBLE} AND e.session = s.id AND e.place > $place
WITH e, m, c ORDER BY e.place LIMIT $limit {_MEMBERSHIP}, e.place"""
_PLACE_OF = "MATCH (e:Episode {ns: $ns, id: $id}) RETURN coalesce(e.place, e.old_place)"

_MOVED = f"""MATCH (r:Run {{ns: $ns, id: $run}}) WHERE r.base IS NOT NULL
MATCH (e:Episode)-[m:{{type}}]->(c) WHERE m.ns = $ns AND m.session = r.session AND m.from = r.version
WITH r, e, coalesce({CLUSTER_OF}, {NEAREST_OF}) AS to
RETURN e.id, to, [(e)-[m:MEMBER_OF|NEAR]->(c) WHERE m.from <= r.base AND (m.to IS NULL OR m.to > r.base)
  | coalesce({CLUSTER_OF}, {NEAREST_OF})][0]"""
_FOLDS = f"""UNWIND $ids AS id MATCH (o:Episode {{ns: $ns, id: id}})<-[d:DUPLICATE_OF]-(e:Episode)
MATCH (s:Session {{ns: $ns, id: e.session}})
WHERE EXISTS {{ MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE m.from = d.from AND {VISIBLE} }}
RETURN o.id, count(e) + 1, o.at, min(e.at), max(e.at)"""
_UNSEEN = f"""NOT EXISTS {{ MATCH (s:Session {{ns: $ns, id: e.session}})
  MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE {VISIBLE} }}"""
_FRESH = f"""MATCH (e:Fresh) WHERE e.ns = $ns AND e.session = $session AND e.place > $place AND {_UNSEEN}
WITH e ORDER BY e.ns, e.session, e.place LIMIT $limit
RETURN e.id, e.content, e.at, e.position, coalesce(e.generation, 0), coalesce(e.windows, 0), e.place"""
_COUNT_FRESH = f"""MATCH (e:Fresh) WHERE e.ns = $ns AND e.session {{of}} AND e.place > '' AND {_UNSEEN}
RETURN e.session, count(e)"""

_PLACES = f"""UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}})-[m:MEMBER_OF|NEAR]->(c)
MATCH (s:Session {{ns: $ns, id: e.session}})
RETURN {CLUSTER_OF}, m.from, m.to, {VISIBLE}"""
_FORGET = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.digest = null
WITH e OPTIONAL MATCH (e)-[m:MEMBER_OF|NEAR|DUPLICATE_OF]->() DELETE m
WITH DISTINCT e OPTIONAL MATCH (e)<-[d:DUPLICATE_OF]-() DELETE d"""


class Memberships(Part):
    """What runs write, and what they have not looked at yet."""

    def stage(self, run_id: str, *, token: str, memberships: Sequence[Membership]) -> bool:
        """See GraphStore. Episodes that were erased, or whose content changed, meanwhile are left out."""
        wanted = {m.episode_id: m for m in memberships}

        def work(tx: Transaction) -> bool:
            held = tx.run(_HELD, ns=self._ns, run=run_id, token=token).single()
            if held is None:
                return False
            session, version, current = held
            _stage(tx, self._ns, wanted, session=session, version=version, current=current)
            return True

        return self._server.write(work, again=True)

    def memberships(
        self, session_id: str, *, after: str | None = None, limit: int = 1000, cluster_id: str | None = None
    ) -> list[Membership]:
        """See GraphStore. In the session's order."""
        query = _OF_SESSION if cluster_id is None else _OF_CLUSTER

        def work(tx: Transaction) -> list[Any]:
            place = "" if after is None else value(tx, _PLACE_OF, ns=self._ns, id=after) or ""
            parameters = {"session": session_id, "cluster": cluster_id, "place": place, "limit": limit}
            return sorted(tx.run(query, parameters, ns=self._ns), key=lambda row: row["e.place"])

        return [Membership(*row[:5]) for row in self._server.read(work)]

    def moved(self, run_id: str) -> list[Moved]:
        """See GraphStore."""

        def work(tx: Transaction) -> list[Moved]:
            parameters = {"ns": self._ns, "run": run_id}
            return [
                Moved(*row)
                for relation in ("MEMBER_OF", "NEAR")
                for row in tx.run(_MOVED.replace("{type}", relation), parameters)
            ]

        return self._server.read(work)

    def folds(self, episode_ids: Sequence[str]) -> dict[str, Fold]:
        """See GraphStore."""
        rows = self._server.read(lambda tx: list(tx.run(_FOLDS, ns=self._ns, ids=usable(episode_ids))))
        return {
            name: Fold(count, to_time(min(own, first)), to_time(max(own, last)))
            for name, count, own, first, last in rows
        }

    def unconsolidated(self, session_id: str, *, limit: int, after: Place | None = None) -> list[Fresh]:
        """See GraphStore."""
        clear_idle_leftovers(self._server, self._ns, session_id)
        place = "" if after is None else place_after(after)
        parameters = {"ns": self._ns, "session": session_id, "place": place, "limit": limit}
        rows = self._server.read(lambda tx: list(tx.run(_FRESH, parameters)))
        rows.sort(key=lambda row: row["e.place"])
        return [Fresh(*values) for *values, _ in rows]

    def count_unconsolidated(self, session_id: str | None = None) -> dict[str, int]:
        """See GraphStore. Sessions with nothing new are left out."""
        clear_idle_leftovers(self._server, self._ns, session_id)
        query = _COUNT_FRESH.replace("{of}", ">= ''" if session_id is None else "= $session")
        rows = self._server.read(lambda tx: list(tx.run(query, ns=self._ns, session=session_id)))
        return {row[0]: row[1] for row in rows}


def forget_memberships(tx: Transaction, ns: str, ids: Sequence[str]) -> int:
    """Remove episodes from every run, kept ones too; how many of the places were visible.

    The clusters they were in shrink; those that become empty go. So does the digest of their text.
    """
    places = [tuple(row) for row in tx.run(_PLACES, ns=ns, ids=sorted(ids))]
    orphans = copies.orphans(tx, ns, set(ids))
    tx.run(_FORGET, ns=ns, ids=sorted(ids)).consume()
    copies.fold(tx, ns, orphans)
    labels.shrink(tx, ns, [(cluster, begun, end) for cluster, begun, end, _ in places if cluster is not None])
    labels.drop_medoids(tx, ns, ids)
    return sum(visible for _, _, _, visible in places)


def _stage(
    tx: Transaction, ns: str, wanted: dict[str, Membership], *, session: str, version: int, current: int
) -> None:
    named = usable(wanted)
    locked = [tuple(row) for row in tx.run(_LOCK, ns=ns, ids=named, session=session)]
    alive = [name for name, _ in locked]
    copies.write_digests(tx, ns, [row for row in locked if row[1] is not None])
    originals = _originals(tx, ns, {m.duplicate_of for m in wanted.values() if m.duplicate_of is not None})
    before: dict[str, tuple[Any, ...]] = {}
    ended: set[str] = set()
    staged: set[str] = set()
    for name, begun, end, *place in tx.run(_STANDING, ns=ns, ids=sorted(alive), version=version, current=current):
        if begun == version:
            staged.add(name)
        else:
            before[name] = tuple(place)
            if end == version:
                ended.add(name)
    after = {name: _place(wanted[name], originals) for name in alive}
    same = {name for name in alive if before.get(name) == after[name]}
    changed = sorted(set(alive) - same)
    tx.run(_UNSTAGE, ns=ns, ids=sorted(staged), version=version).consume()
    # staged otherwise a moment ago, perhaps
    tx.run(_END, ns=ns, ids=sorted(same & ended), current=current, to=None).consume()
    tx.run(_END, ns=ns, ids=[name for name in changed if name in before], current=current, to=version).consume()
    _write(tx, ns, {name: after[name] for name in changed}, session=session, version=version)


def _write(tx: Transaction, ns: str, places: dict[str, tuple[Any, ...]], *, session: str, version: int) -> None:
    clusters = sorted({c for cluster, nearest, *_ in places.values() for c in (cluster, nearest) if c is not None})
    tx.run(_CLUSTERS, ns=ns, ids=clusters, session=session).consume()
    parameters: dict[str, Any] = {"ns": ns, "session": session, "version": version}
    rows: dict[tuple[str, str], list[list[Any]]] = {}
    for name, (cluster, nearest, distance, _) in places.items():
        if cluster is not None:
            kind, row = (
                ("MEMBER_OF", "Cluster"),
                [name, cluster, distance, None if nearest == cluster else nearest or ""],
            )
        elif nearest is not None:
            kind, row = ("NEAR", "Cluster"), [name, nearest, distance, None]
        else:
            kind, row = ("NEAR", "Session"), [name, session, distance, None]
        rows.setdefault(kind, []).append(row)
    for (relation, target), group in rows.items():
        tx.run(_STAGE.format(type=relation, target=target), parameters, rows=group).consume()
    duplicates = [[name, place[3]] for name, place in places.items() if place[3] is not None]
    if duplicates:
        tx.run(_STAGE_DUPLICATES, parameters, rows=duplicates).consume()


def _place(m: Membership, originals: set[str]) -> tuple[Any, ...]:
    return m.cluster_id, m.nearest, m.distance, m.duplicate_of if m.duplicate_of in originals else None


def _originals(tx: Transaction, ns: str, ids: set[str]) -> set[str]:
    return {row[0] for row in tx.run(_ORIGINALS, ns=ns, ids=usable(ids))} if ids else set()
