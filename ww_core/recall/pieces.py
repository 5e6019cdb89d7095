"""What late interaction keeps of a text: the signs of its word pieces' vectors, in memory and as bytes in a store.

One bit a component: 48 bytes a word piece at 384 dimensions, about 1.5 KB an episode, where single precision takes
46 KB and finds no more. No word piece itself is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ww_core.models import Vector

_DIGEST = 8
_WIDTH = 2
"""Bytes of the header: a digest of the text that was read, and the bytes of one word piece."""


class Tokens(Protocol):
    """The word pieces of one text: ``ids`` int64 (t,) and ``vectors`` float32 (t, h), special tokens at both ends."""

    @property
    def ids(self) -> NDArray[np.int64]: ...
    @property
    def vectors(self) -> Vector: ...


class TokenEncoder(Protocol):
    """What late interaction needs of the embedding service."""

    def encode_query_with_tokens(self, text: str) -> tuple[Vector, Any]:
        """The query's vector float32 (d,) and its ``Tokens``, None where those cannot be had here."""

    def token_vectors(self, texts: Sequence[str], *, kind: Literal["document"]) -> Sequence[Any]:
        """``Tokens`` of each text."""

    def word_pieces(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The ids of each text's word pieces, special tokens at both ends; no model is run."""


@dataclass(frozen=True, slots=True)
class Signs:
    """The token vectors of one text: ``bits`` uint8 (t, h / 8), a set bit for each component above 0."""

    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, vectors: Vector) -> Signs:
        """From float vectors (t, h), h a multiple of 8."""
        return cls(np.packbits(vectors > 0, axis=1))

    def cosines(self, query: Vector) -> Vector:
        """Float32 (t, q): with each of ``query`` (q, h), unit rows; a sign stands for one of -1 and 1."""
        ones = np.unpackbits(self.bits, axis=1).astype(np.float32)
        both: Vector = ones @ (2 * query.T) - query.sum(axis=1)  # (2 b - 1) q, without writing 2 b - 1 down
        return both / np.float32(max(ones.shape[1], 1) ** 0.5)

    def packed(self, content: str) -> bytes:
        """As bytes that know which text they were read from."""
        width = int(self.bits.shape[1])
        return b"".join((_digest(content), width.to_bytes(_WIDTH, "little"), self.bits.tobytes()))

    @classmethod
    def unpack(cls, raw: bytes, content: str) -> Signs | None:
        """From ``packed``; None where that was another text."""
        if raw[:_DIGEST] != _digest(content):
            return None
        width = int.from_bytes(raw[_DIGEST : _DIGEST + _WIDTH], "little")
        return cls(np.frombuffer(raw, np.uint8, offset=_DIGEST + _WIDTH).reshape(-1, max(width, 1)))


def reader(encoder: TokenEncoder) -> Callable[[Sequence[str]], list[bytes]]:
    """What makes of texts the bytes that are kept of them."""

    def read(texts: Sequence[str]) -> list[bytes]:
        found = encoder.token_vectors(texts, kind="document")
        return [
            Signs.of(tokens.vectors[1:-1]).packed(text) if len(tokens.ids) > 2 else b""
            for text, tokens in zip(texts, found, strict=True)
        ]

    return read


def _digest(content: str) -> bytes:
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=_DIGEST).digest()
