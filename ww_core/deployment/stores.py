"""Which stores settings mean, and how they are opened: the one place that chooses adapters."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Hashable
from pathlib import Path

from ww_core.config import Settings
from ww_core.errors import StoreUnavailable
from ww_core.observability.summary import POOL_UTIL
from ww_core.stores.ports import GraphStore, VectorStore

GRAPH_FILE = "graph.sqlite3"
"""Of the namespace ``ww``; any other has ``graph-NAMESPACE.sqlite3``, as each has its own vectors."""


def graph_key(s: Settings) -> Hashable:
    """Equal for settings that mean the same graph store, reached in the same way."""
    if s.neo4j_uri is None:
        return ("sqlite", str(s.data_dir), s.namespace)
    return (
        *("neo4j", s.neo4j_uri, s.neo4j_user, s.neo4j_password, s.neo4j_database, s.namespace),
        *(s.neo4j_pool_size, s.neo4j_max_transaction_retry, s.neo4j_acquisition_timeout),
    )


def vectors_key(s: Settings) -> Hashable:
    """Equal for settings that mean the same vector store, reached in the same way."""
    if s.qdrant_url is None:
        return ("edge", str(s.data_dir), s.namespace, s.archive_cold)
    return (
        *("qdrant", s.qdrant_url, s.qdrant_api_key, s.namespace, s.embedding_model),
        *(s.qdrant_timeout, s.qdrant_grpc, s.qdrant_prefer_grpc, s.qdrant_grpc_port, s.qdrant_pool_size),
        *(s.qdrant_shard_number, s.qdrant_replication_factor, s.qdrant_write_consistency),
        *(s.qdrant_on_disk, s.qdrant_quantization, s.qdrant_session_sharding, s.archive_cold),
    )


def made_data_dir(settings: Settings) -> Path:
    """The data directory, made (mode 0700) where it is absent. Raises StoreUnavailable."""
    path = settings.data_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(
            f"data directory {path} cannot be made: {error.strerror or error}",
            hint="choose another with --data-dir or the setting data_dir",
        ) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnavailable(
            f"data directory {path} cannot be read and written by this user",
            hint="change its permissions, or choose another with --data-dir or the setting data_dir",
        )
    return path


def open_graph(settings: Settings, *, peak: Callable[[str, float], None]) -> GraphStore:
    """Neo4j where ``neo4j_uri`` is set, else SQLite. ``peak`` is told how much of its pool is in use, by name."""
    if settings.neo4j_uri is None:
        from ww_core.stores.embedded.graph import SqliteGraphStore

        namespace = settings.namespace
        return SqliteGraphStore(
            made_data_dir(settings) / (GRAPH_FILE if namespace == "ww" else f"graph-{namespace}.sqlite3")
        )
    from ww_core.stores.servers.neo4j import Neo4jGraphStore

    return Neo4jGraphStore(settings, on_use=lambda share: peak(POOL_UTIL, share))


def open_vectors(settings: Settings) -> VectorStore:
    """A Qdrant server where ``qdrant_url`` is set, else qdrant-edge."""
    if settings.qdrant_url is None:
        from ww_core.stores.embedded.vectors import EdgeVectorStore

        return EdgeVectorStore.open(
            made_data_dir(settings), namespace=settings.namespace, archive_cold=settings.archive_cold
        )
    from ww_core.stores.servers.qdrant import QdrantVectorStore

    return QdrantVectorStore(settings)


def update_queue(vectors: VectorStore) -> Callable[[], float]:
    """What reads how many updates wait in the Qdrant server of ``vectors``; nan where it does not tell."""
    from ww_core.observability.stores import Elsewhere
    from ww_core.stores.servers.qdrant import QdrantVectorStore

    return Elsewhere(vectors.update_queue if isinstance(vectors, QdrantVectorStore) else lambda: math.nan)
