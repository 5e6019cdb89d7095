"""The graph store on SQLite."""

from ww_core.stores.embedded.graph.store import SqliteGraphStore

__all__ = ["SqliteGraphStore"]
