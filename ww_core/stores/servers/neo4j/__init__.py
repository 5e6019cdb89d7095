"""The graph port on a Neo4j server."""

from ww_core.stores.servers.neo4j.store import Neo4jGraphStore

__all__ = ["Neo4jGraphStore"]
