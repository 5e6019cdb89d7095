"""The vector store on qdrant-edge, shared by this user's processes through one owner."""

from ww_core.stores.embedded.vectors.store import EdgeVectorStore

__all__ = ["EdgeVectorStore"]
