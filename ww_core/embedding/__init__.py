"""Texts as unit vectors: the model, its windows, the cache in front of it, and BM25 as sparse vectors.

Importing this package loads no torch.
"""

from ww_core.embedding.errors import EncodingFailed, OutOfMemory, TextRefused
from ww_core.embedding.service import EmbeddingService
from ww_core.embedding.sparse import SparseEncoder

__all__ = ["EmbeddingService", "EncodingFailed", "OutOfMemory", "SparseEncoder", "TextRefused"]
