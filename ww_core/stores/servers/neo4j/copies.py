"""Exact copies among what runs have placed: each episode that a run has staged has a digest of its text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from neo4j import Transaction

from ww_core.stores.ports import ReadTexts
from ww_core.stores.servers.neo4j.rows import ORIGINAL_OF, VISIBLE, Part, usable
from ww_core.stores.texts import digest

STEP = 2000
"""Episodes of one transaction."""

COPIES = f"""MATCH (s:Session {{ns: $ns, id: $session}}) WHERE s.current > 0
UNWIND $digests AS text
CALL (s, text) {{
  MATCH (e:Episode) WHERE e.ns = $ns AND e.session = s.id AND e.digest = text AND e.seq > 0
  MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE {VISIBLE}
  RETURN e, m ORDER BY e.ns, e.session, e.digest, e.seq LIMIT 1
}}
RETURN text, coalesce({ORIGINAL_OF}, e.id)"""
_UNREAD = "MATCH (s:Session {ns: $ns, id: $session}) WHERE s.digested IS NOT NULL SET s.lock = true RETURN s.digested"
_PAGE = """MATCH (e:Episode) WHERE e.ns = $ns AND e.session = $session AND e.place > $place
WITH e ORDER BY e.ns, e.session, e.place LIMIT $limit RETURN e.id, e.place"""
_LOCK = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e WHERE e.place IS NOT NULL AND e.digest IS NULL RETURN e.id, e.content"""
_WRITE = "UNWIND $rows AS row MATCH (e:Episode {ns: $ns, id: row[0]}) SET e.digest = row[1]"
_READ = "MATCH (s:Session {ns: $ns, id: $session}) SET s.digested = $place"
_ORPHANS = """UNWIND $ids AS id MATCH (o:Episode {ns: $ns, id: id})<-[d:DUPLICATE_OF]-(e:Episode)
RETURN o.id, e.id, d.from, e.digest, CASE WHEN e.digest IS NULL THEN e.content END ORDER BY e.place"""
"""A text has no digest yet where it was placed by a run before there were any."""
_FOLD = """UNWIND $rows AS row MATCH (e:Episode {ns: $ns, id: row[0]}) MATCH (o:Episode {ns: $ns, id: row[1]})
CREATE (e)-[:DUPLICATE_OF {from: row[2]}]->(o)"""


class Copies(Part):
    """Which episodes say the same."""

    def copies(self, session_id: str, digests: Sequence[bytes]) -> dict[bytes, str]:
        """See GraphStore."""
        if not usable([session_id]):
            return {}
        parameters: dict[str, Any] = {"session": session_id, "digests": [text.hex() for text in digests]}
        rows = self._server.read(lambda tx: list(tx.run(COPIES, parameters, ns=self._ns)))
        return {bytes.fromhex(text): name for text, name in rows}

    def index_texts(self, session_id: str, *, limit: int) -> bool:
        """See GraphStore. ``stage`` does it for what it stages: here what was staged before it did, in short steps."""
        if not usable([session_id]):
            return False

        def step(tx: Transaction) -> bool:
            unread = tx.run(_UNREAD, ns=self._ns, session=session_id).single()
            if unread is None:
                return False
            parameters: dict[str, Any] = {"session": session_id, "place": unread[0], "limit": STEP}
            page = sorted(tx.run(_PAGE, parameters, ns=self._ns), key=lambda row: row["e.place"])
            ids = sorted(row["e.id"] for row in page)
            write_digests(tx, self._ns, tx.run(_LOCK, ns=self._ns, ids=ids))
            more = len(page) == STEP
            place = page[-1]["e.place"] if more else None
            tx.run(_READ, ns=self._ns, session=session_id, place=place).consume()
            return more

        return all(self._server.write(step, again=True) for _ in range(0, limit, STEP))

    def index_read(self, run_id: str, texts: Iterable[ReadTexts]) -> None:
        """See GraphStore. Nothing: ``stage`` has done it."""

    def scrub(self) -> None:
        """See GraphStore. Freed records are the server's own affair."""


def write_digests(tx: Transaction, ns: str, texts: Iterable[Sequence[Any]]) -> None:
    """Note what texts are, each (episode id, content): of episodes that the transaction has locked."""
    rows = [[name, digest(content).hex()] for name, content in texts]
    if rows:
        tx.run(_WRITE, ns=ns, rows=rows).consume()


def orphans(tx: Transaction, ns: str, originals: Collection[str]) -> list[list[Any]]:
    """How to fold what loses its original with the episodes, as rows for ``fold``: copies of one text into the first
    of them, all else into nothing."""
    heirs: dict[tuple[str, str], str] = {}
    rows = []
    for original, name, begun, known, content in tx.run(_ORPHANS, ns=ns, ids=sorted(originals)):
        text = name if known is None and content is None else known or digest(content).hex()
        heir = heirs.setdefault((original, text), name) if name not in originals else name
        if heir != name:
            rows.append([name, heir, begun])
    return sorted(rows)


def fold(tx: Transaction, ns: str, rows: Sequence[list[Any]]) -> None:
    """Write rows of ``orphans``."""
    if rows:
        tx.run(_FOLD, ns=ns, rows=list(rows)).consume()
