"""A module that a trial's workers load by the setting ``hooks``: it makes their encoder fail on poisoned texts.

A real model fails on nothing that validation lets in, so the failure is put where it would arise. No other process
imports this module.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence

from ww_core.embedding.service import EmbeddingService
from ww_core.models import Vector
from ww_workers.chaos.texts import POISON

_windows_as_made = EmbeddingService.windows_as_made


def _made_or_failed(self: EmbeddingService, lists: Iterable[Sequence[str]]) -> Generator[tuple[int, Vector]]:
    yield from _windows_as_made(self, map(_refused, lists))


def _refused(texts: Sequence[str]) -> Sequence[str]:
    if any(POISON in text for text in texts):
        raise RuntimeError("the encoder cannot take this text")
    return texts


EmbeddingService.windows_as_made = _made_or_failed  # type: ignore[method-assign]
