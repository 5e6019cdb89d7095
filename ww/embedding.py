"""The embedding service of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ww.memory.default import current

if TYPE_CHECKING:
    from ww_core.embedding import EmbeddingService

__all__ = ["get_embedding_service"]


def get_embedding_service() -> EmbeddingService:
    """The service that the module-level functions of ``ww.memory`` use; the model loads when it is first needed."""
    from ww_core.deployment import Deployment

    return Deployment.of(current().settings).embedding
