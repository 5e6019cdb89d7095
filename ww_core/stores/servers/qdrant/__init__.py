"""The vector port on a Qdrant server."""

from ww_core.stores.servers.qdrant.store import QdrantVectorStore

__all__ = ["QdrantVectorStore"]
