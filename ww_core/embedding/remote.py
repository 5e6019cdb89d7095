"""Queries embedded elsewhere: for processes that hold no model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from ww_core.embedding.cache import EmbeddingCache
from ww_core.errors import ModelUnavailable, Unavailable
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.models import Vector

LONGEST_WAIT_SECONDS = 10.0
"""Between two questions to somebody who does not answer; meanwhile every query is refused at once."""


class RemoteQueries:
    """What recall needs of an embedding service, with the model in another process.

    ``ask`` answers within a bound or raises Unavailable. Only queries are worth the way there and back: everything else
    raises ModelUnavailable, and recall goes by words.
    """

    def __init__(
        self,
        ask: Callable[[str], Vector],
        *,
        cache_size: int,
        cache_ttl: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._cache: EmbeddingCache[str] = EmbeddingCache(cache_size, cache_ttl, clock=clock)
        self._breaker = CircuitBreaker(longest=LONGEST_WAIT_SECONDS, clock=clock)

    def encode_query(self, text: str) -> Vector:
        """float32 (d,), unit length, through a cache. Raises ModelUnavailable."""
        row: Vector = self._cache.fetch([text], self._asked)[0]
        return row

    def encode_query_with_tokens(self, text: str) -> tuple[Vector, None]:
        """``encode_query``; word pieces stay where the model is."""
        return self.encode_query(text), None

    def cache_stats(self) -> Mapping[str, float]:
        """As EmbeddingCache.stats describes them."""
        return self._cache.stats()

    def _asked(self, texts: list[str]) -> list[Vector]:
        if self._breaker.remaining > 0:
            raise ModelUnavailable("nobody embeds queries now", hint="is a worker running for ww.query?")
        try:
            vectors = [np.asarray(self._ask(text), dtype=np.float32) for text in texts]
        except Unavailable as error:
            self._breaker.failed()
            raise ModelUnavailable(error.message, hint=error.hint) from error
        self._breaker.succeeded()
        return vectors

    def encode(self, texts: Sequence[str]) -> Vector:
        """Raises ModelUnavailable."""
        return _no_model()

    def token_vectors(self, texts: Sequence[str], *, kind: str = "document") -> Sequence[Any]:
        """Raises ModelUnavailable."""
        return _no_model()

    def word_pieces(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """None: what is read word by word needs the model here."""
        return []


def _no_model() -> NoReturn:
    raise ModelUnavailable("this process holds no model", hint="set embedding_mode to local")
