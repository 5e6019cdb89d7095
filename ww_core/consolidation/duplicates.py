"""Folding what says the same: exact copies by their text, near ones by their vectors unless their numbers differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ww_core.consolidation.progress import unwatched
from ww_core.models import Vector
from ww_core.stores import texts as wording

_NEGATIONS = "no|not|never|without|none|nor|cannot"
_NUMBER = r"\d[\d.,:/-]*"
_EXACTING = re.compile(rf"{_NUMBER}|\b(?:{_NEGATIONS}|\w+n't)\b")
"""In lower case."""
_EXACTING_IN_FULL = re.compile(rf"{_NUMBER}|\b(?:{_NEGATIONS})\b")
"""The same in texts without contractions."""
_NUMBERS = re.compile(_NUMBER)
"""The same in texts without any negation."""
_NOTHING = bytes(8)
BLOCK = 1024
"""Rows compared with the others at a time."""
STRIP = 64
"""Rows compared with those of their cells at a time: several small cells in one product, and little of others."""


@dataclass(frozen=True, slots=True)
class Texts:
    """What n texts have to agree on with another to be its duplicate, as digests: 24 bytes a text."""

    whole: NDArray[np.uint64]
    """(n, 2) of the text (ww_core.stores.texts): equal ones are exact duplicates."""
    exacting: NDArray[np.uint64]
    """(n,) of its numbers and negations in order: vectors hardly see them, people do."""

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """The digests of texts."""
        whole, exacting = bytearray(), bytearray()
        for text in texts:
            plain = wording.plain(text)
            whole += wording.digest_of_plain(plain)
            found = _exacting(plain)
            exacting += _digest(" ".join(found)) if found else _NOTHING
        return cls(np.frombuffer(whole, np.uint64).reshape(-1, 2), np.frombuffer(exacting, np.uint64))

    @classmethod
    def together(cls, parts: Sequence[Texts]) -> Texts:
        """All texts of the parts, in their order."""
        nothing = Texts.of(())
        return cls(
            np.concatenate([nothing.whole, *(part.whole for part in parts)]),
            np.concatenate([nothing.exacting, *(part.exacting for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.exacting)

    def __getitem__(self, rows: NDArray[np.int64]) -> Texts:
        return Texts(self.whole[rows], self.exacting[rows])

    def keys(self) -> list[bytes]:
        """``whole`` as graph stores know it."""
        joined, size = self.whole.tobytes(), wording.SIZE
        return [joined[start : start + size] for start in range(0, len(joined), size)]

    def first(self) -> NDArray[np.int64]:
        """(n,) for each text the first row with the same text: its own, where it is no copy."""
        order = np.lexsort((self.whole[:, 1], self.whole[:, 0]))
        ordered = self.whole[order]
        begins = np.ones(len(order), dtype=np.bool_)
        begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        # lexsort is stable: of equal texts the first row comes first
        found = np.empty(len(order), dtype=np.int64)
        found[order] = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
        return found


def fold(vectors: Vector, texts: Texts, *, threshold: float, step: Callable[[], None] = unwatched) -> NDArray[np.int64]:
    """For each of n rows in order of time the first row that it duplicates, or itself (n,); never a chain.

    ``vectors`` (n, d) unit rows; ``threshold`` is the cosine (0 to 1) from which rows are near duplicates; from 1 on
    only exact copies are folded. ``step`` is called before each BLOCK of rows, and may raise.
    """
    heads = texts.first()
    if threshold < 1.0:
        for start in range(0, len(vectors), BLOCK):
            step()
            stop = min(start + BLOCK, len(vectors))
            later, earlier = np.nonzero(vectors[start:stop] @ vectors[:stop].T >= threshold)
            _join(heads, later + start, earlier, texts)
    return heads[heads]


def fold_within(cells: NDArray[np.int32], vectors: Vector, texts: Texts, *, threshold: float) -> NDArray[np.int64]:
    """The same where near duplicates are looked for only among rows of one of the ``cells`` (n,)."""
    heads = texts.first()
    if threshold < 1.0:
        order = np.argsort(cells, kind="stable")
        ordered, rows = cells[order], vectors[order]
        begins = np.searchsorted(ordered, ordered)
        for start in range(0, len(rows), STRIP):
            low, stop = begins[start], min(start + STRIP, len(rows))
            near = rows[start:stop] @ rows[low:stop].T >= threshold
            later, earlier = np.nonzero(near & (ordered[start:stop, None] == ordered[low:stop]))
            if len(later) > stop - start:  # every row is like itself
                _join(heads, order[later + start], order[earlier + low], texts)
    return heads[heads]


def _join(heads: NDArray[np.int64], later: NDArray[np.int64], earlier: NDArray[np.int64], texts: Texts) -> None:
    """Give each row the earliest head that it is near to, in place. The pairs go by row, then by the other row, within
    each cell."""
    pairs = earlier < later
    for row, other in zip(later[pairs].tolist(), earlier[pairs].tolist(), strict=True):
        free = heads[row] == row and heads[other] == other
        if free and texts.exacting[row] == texts.exacting[other]:
            heads[row] = other


def _exacting(plain: str) -> list[str]:
    """Most texts have no negation, and show it by their letters before each of their words is tried as one."""
    if "n't" in plain:
        return _EXACTING.findall(plain)
    if "no" in plain or "never" in plain or "without" in plain:
        return _EXACTING_IN_FULL.findall(plain)
    return _NUMBERS.findall(plain)


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=len(_NOTHING)).digest()
