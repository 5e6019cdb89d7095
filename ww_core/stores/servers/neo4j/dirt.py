"""Dirty flags: which embedded episodes have derived data that no longer matches the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from neo4j import Transaction

from ww_core.stores.ports import CONTEXT_NEIGHBOURS, Dirty, DirtyRow
from ww_core.stores.servers.neo4j.rows import EPISODE, Part, next_version, to_episode, usable

SIDE = """CALL (e) {{
  MATCH (p:Episode) WHERE p.ns = e.ns AND p.session = e.session AND p.place {beyond} e.place
  RETURN p ORDER BY p.ns {way}, p.session {way}, p.place {way} LIMIT $reach
}}"""
_NEIGHBOURS = f"""UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) WHERE e.place IS NOT NULL
{SIDE.format(beyond="<", way="DESC")}
WITH p WHERE p.state = 'embedded' RETURN p.id
UNION
UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) WHERE e.place IS NOT NULL
{SIDE.format(beyond=">", way="ASC")}
WITH p WHERE p.state = 'embedded' RETURN p.id"""
# While a run stages a new place for an episode, its payload follows the run; the flag waits for the end of the run.
_STAGED = """EXISTS {
  MATCH (s:Session {ns: e.ns, id: e.session}) WHERE s.leftovers
  MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE m.from > s.current }"""
_DIRTY = f"""MATCH (e:Episode) WHERE e.ns = $ns AND e.{{flag}} > 0 AND e.state = 'embedded'{{condition}}
WITH e ORDER BY e.ns, e.{{flag}} LIMIT $limit {EPISODE.replace("{", "{{").replace("}", "}}")}, e.{{flag}} AS version"""
_CLEAR = """UNWIND $rows AS row MATCH (e:Episode {{ns: $ns, id: row[0]}}) SET e.lock = true
WITH e, row WHERE e.{flag} = row[1]{condition} SET e.{flag} = null"""
_MARK = """UNWIND $rows AS row MATCH (e:Episode {{ns: $ns, id: row[0]}}) WHERE e.place IS NOT NULL
SET e.{flag} = row[1]"""
# NEXT leads from an episode to the one behind it in its session.
_LINK = f"""UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) WHERE e.place IS NOT NULL
{SIDE.format(beyond=">", way="ASC")}
WITH e, p WHERE NOT EXISTS {{ (e)-[:NEXT]->(p) }}
OPTIONAL MATCH (e)-[old:NEXT]->() DELETE old
WITH DISTINCT e, p
OPTIONAL MATCH ()-[other:NEXT]->(p) DELETE other
WITH DISTINCT e, p CREATE (e)-[:NEXT]->(p)"""
_FLAGS = {Dirty.PAYLOAD: "payload_dirty", Dirty.CONTEXT: "context_dirty"}


class Dirt(Part):
    """Work that is due on derived data."""

    def dirty(self, kind: Dirty, limit: int) -> list[DirtyRow]:
        """See GraphStore. Oldest change first."""
        query = _DIRTY.format(flag=_FLAGS[kind], condition=_not_staged(kind))
        rows = self._server.read(lambda tx: list(tx.run(query, ns=self._ns, limit=limit)))
        return [DirtyRow(to_episode(row), row["version"]) for row in sorted(rows, key=lambda row: row["version"])]

    def clear_dirty(self, kind: Dirty, versions: Mapping[str, int]) -> None:
        """See GraphStore.

        An episode's context is stale whenever it has new neighbours: this is when its NEXT is set right, by those who
        work in the background and not by those who store.
        """
        ids = usable(versions)
        if not ids:
            return
        query = _CLEAR.format(flag=_FLAGS[kind], condition=_not_staged(kind))

        def work(tx: Transaction) -> None:
            tx.run(query, ns=self._ns, rows=[[name, versions[name]] for name in ids]).consume()
            if kind is Dirty.CONTEXT:
                tx.run(_LINK, ns=self._ns, ids=ids, reach=1).consume()

        self._server.write(work, again=True)

    def mark_payload(self, episode_ids: Sequence[str]) -> None:
        """See GraphStore."""
        ids = usable(episode_ids)
        if ids:
            self._server.write(lambda tx: mark(tx, self._ns, Dirty.PAYLOAD, ids), again=True)


def mark(tx: Transaction, ns: str, kind: Dirty, ids: Iterable[str]) -> None:
    """Flag rows. The version is new even where the flag was set: a refresh that is under way does not clear it."""
    rows = [[name, i] for i, name in enumerate(sorted(set(ids)), next_version())]
    if rows:
        tx.run(_MARK.format(flag=_FLAGS[kind]), ns=ns, rows=rows).consume()


def neighbours_of(tx: Transaction, ns: str, ids: Iterable[str]) -> list[str]:
    """The embedded rows whose context the given rows are part of."""
    return [row[0] for row in tx.run(_NEIGHBOURS, ns=ns, ids=sorted(ids), reach=CONTEXT_NEIGHBOURS)]


def _not_staged(kind: Dirty) -> str:
    return f" AND NOT {_STAGED}" if kind is Dirty.PAYLOAD else ""
