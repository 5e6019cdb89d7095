"""Folding what says the same: exact copies by their text, near ones by their vectors unless their numbers differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ww_core.models import Vector

_SPACE = re.compile(r"\s+")
_EXACTING = re.compile(r"\d[\d.,:/-]*|\b(?:no|not|never|without|none|nor|cannot|\w+n't)\b", re.IGNORECASE)
BLOCK = 1024
"""Rows compared with the others at a time."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a text has to agree on with another to be its duplicate, as digests."""

    whole: bytes
    """Of the text without regard to case and white space: equal ones are exact duplicates."""
    exacting: bytes
    """Of its numbers and negations in order: vectors hardly see them, people do."""


def fingerprint(text: str) -> Text:
    """The digests of one text."""
    plain = _SPACE.sub(" ", text).strip().casefold()
    return Text(_digest(plain), _digest(" ".join(_EXACTING.findall(plain))))


def fold(vectors: Vector, texts: Sequence[Text], *, threshold: float) -> list[int]:
    """For each of n rows in order of time the first row that it duplicates, or itself; never a chain.

    ``vectors`` (n, d) unit rows; ``threshold`` is the cosine (0 to 1) from which rows are near duplicates; from 1 on
    only exact copies are folded.
    """
    first_of: dict[bytes, int] = {}
    heads = [first_of.setdefault(text.whole, row) for row, text in enumerate(texts)]
    if threshold >= 1.0:
        return heads
    for start in range(0, len(vectors), BLOCK):
        stop = min(start + BLOCK, len(vectors))
        cosines = vectors[start:stop] @ vectors[:stop].T
        later, earlier = np.nonzero(cosines >= threshold)
        for row, other in zip((later + start).tolist(), earlier.tolist(), strict=True):
            # np.nonzero goes by row, then by column: the earliest match of a row comes first.
            free = other < row and heads[row] == row and heads[other] == other
            if free and texts[row].exacting == texts[other].exacting:
                heads[row] = other
    return [heads[head] for head in heads]


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
