"""Small durable facts by name: beat ticks, sweep cursors, rolling figures."""

from __future__ import annotations

from ww_core.stores.servers.neo4j.rows import Part, value

_GET = "MATCH (f:Fact {ns: $ns, key: $key}) RETURN f.value"
_PUT = "MERGE (f:Fact {ns: $ns, key: $key}) SET f.value = $value"
_LIST = """MATCH (f:Fact) WHERE f.ns = $ns AND f.key STARTS WITH $prefix
RETURN f.key, f.value ORDER BY f.key LIMIT $limit"""
_DROP = "MATCH (f:Fact {ns: $ns, key: $key}) DELETE f"


class Facts(Part):
    """Nodes with a key and a text."""

    def get_fact(self, key: str) -> str | None:
        """See GraphStore."""
        found: str | None = self._server.read(lambda tx: value(tx, _GET, ns=self._ns, key=key))
        return found

    def put_fact(self, key: str, value: str) -> None:
        """See GraphStore."""
        self._server.write(lambda tx: tx.run(_PUT, ns=self._ns, key=key, value=value).consume(), again=True)

    def facts(self, prefix: str, *, limit: int = 100) -> dict[str, str]:
        """See GraphStore."""
        rows = self._server.read(lambda tx: list(tx.run(_LIST, ns=self._ns, prefix=prefix, limit=limit)))
        return {str(row[0]): str(row[1]) for row in rows}

    def drop_fact(self, key: str) -> None:
        """See GraphStore."""
        self._server.write(lambda tx: tx.run(_DROP, ns=self._ns, key=key).consume(), again=True)
