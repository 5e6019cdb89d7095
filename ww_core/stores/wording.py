"""Taking words that only erased episodes said out of labels and key phrases."""

from __future__ import annotations

import re
from collections.abc import Sequence

WITNESSES = 1000
"""Members looked at for a word of an erased episode; a word none of them has was the erased episode's own."""

_WORD = re.compile(r"\w+")


def words(text: str) -> set[str]:
    """The distinct words of a text, case folded."""
    return set(_WORD.findall(text.casefold()))


def without(gone: set[str], label: str, keyphrases: Sequence[str]) -> tuple[str, list[str]]:
    """Label and key phrases without what says any of the words ``gone``; the first phrase left becomes the label."""
    kept = [phrase for phrase in keyphrases if not gone & words(phrase)]
    if gone & words(label):
        label = kept[0] if kept else ""
    return label, kept
