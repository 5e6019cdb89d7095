"""A module that a trial's workers load by the setting ``hooks``: it makes their encoder fail on poisoned texts.

A real model fails on nothing that validation lets in, so the failure is put where it would arise. No other process
imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence

from ww_core.embedding.service import EmbeddingService
from ww_core.models import Vector
from ww_workers.chaos.texts import POISON

_embed_windows = EmbeddingService.embed_windows


def _embed_or_fail(self: EmbeddingService, texts: Sequence[str]) -> list[Vector]:
    if any(POISON in text for text in texts):
        raise RuntimeError("the encoder cannot take this text")
    return _embed_windows(self, texts)


EmbeddingService.embed_windows = _embed_or_fail  # type: ignore[method-assign]
