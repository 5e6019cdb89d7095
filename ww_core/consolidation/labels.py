"""Names for clusters: class-based TF-IDF keyphrases of up to three words, and the member nearest to the centroid.

Notes
-----
Class-based TF-IDF (Grootendorst, 2022) weighs a phrase by its share of the cluster's texts times
log(1 + texts per cluster on average / texts that hold it).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from math import log

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from ww_core.consolidation.progress import unwatched

MAX_WORDS = 3
KEYPHRASES = 5
TEXT_WORDS = 120
"""Words read of each text: the beginning says what it is about, and long texts must not drown the others."""
PHRASE_BONUS = 0.35
"""Per further word: a phrase is rarer than its words and says more."""
MAX_LABEL_CHARS = 60
UNNAMED = "miscellaneous"

_WORD = re.compile(r"[^\W\d_](?:[\w'-]*\w)?")
_PAUSE = re.compile(r"[.,:;!?…()\[\]{}<>|\"“”\n]+|\s[-–—]+\s")
"""No phrase goes across one."""
_STOP = ENGLISH_STOP_WORDS | {
    "bye", "did", "does", "hello", "hey", "hi", "just", "let", "like", "oh", "ok", "okay", "please", "really", "sure",
    "thank", "thanks", "want", "won", "wow", "yeah", "yep", "yes",
}  # fmt: skip


def phrases(text: str, names: Collection[str] = ()) -> set[str]:
    """The phrases of one to three words in a text, lower case, neither beginning nor ending with a stop word.

    ``names``, lower case, are no better than stop words: who speaks says little of what is spoken about.
    """
    found: set[str] = set()
    left = TEXT_WORDS
    for stretch in _PAUSE.split(text.replace("’", "'")):
        words = [word.lower() for word in _WORD.findall(stretch)[:left]]
        left -= len(words)
        stop = [_empty(word) or word in names for word in words]
        for start, word in enumerate(words):
            if stop[start]:
                continue
            found.add(word)
            for end in range(start + 1, min(start + MAX_WORDS, len(words))):
                if not stop[end]:
                    found.add(" ".join(words[start : end + 1]))
    return found


def _empty(word: str) -> bool:
    """Whether it is a stop word, or one with another joined on: I'll, haven't, let's."""
    head, mark, _ = word.partition("'")
    return len(head) < 2 or head in _STOP or (mark != "" and head.removesuffix("n") in _STOP)


def keyphrases(
    classes: Sequence[Sequence[str]], names: Collection[str] = (), step: Callable[[], None] = unwatched
) -> list[tuple[str, ...]]:
    """The phrases, best first, that set each cluster's texts apart from the others'; ``names`` as in ``phrases``.

    A phrase that only one of several texts holds is never used: it would name an episode, not a cluster. ``step`` is
    called between the clusters, and may raise.
    """
    counts: list[Counter[str]] = []
    for texts in classes:
        step()
        counts.append(Counter(phrase for text in texts for phrase in phrases(text, names)))
    everywhere: Counter[str] = Counter()
    for count in counts:
        everywhere.update(count)
    average = sum(len(texts) for texts in classes) / max(len(classes), 1)
    return [
        _best(count, len(texts), everywhere, average) if texts else ()
        for count, texts in zip(counts, classes, strict=True)
    ]


def _best(count: Counter[str], texts: int, everywhere: Counter[str], average: float) -> tuple[str, ...]:
    at_least = min(2, texts)
    scores = {
        phrase: (n / texts) * log(1.0 + average / everywhere[phrase]) * (1.0 + PHRASE_BONUS * phrase.count(" "))
        for phrase, n in count.items()
        if n >= at_least
    }
    chosen: list[str] = []
    said: set[str] = set()
    for phrase in sorted(scores, key=lambda p: (-scores[p], p)):
        stems = {word.removesuffix("'s").removesuffix("s") for word in phrase.split()}
        if said & stems:
            continue
        said |= stems
        chosen.append(phrase)
        if len(chosen) == KEYPHRASES:
            break
    return tuple(chosen)


def label(candidates: Iterable[str], taken: Collection[str]) -> str:
    """A label made of as few of the keyphrases as make it say something and differ from those taken.

    The first phrase, with the second one where it is a single word; more of them, then a number, where that is taken.
    """
    used = {name.casefold() for name in taken}
    parts = list(candidates) or [UNNAMED]
    start = 1 if " " in parts[0] else 2
    for count in range(min(start, len(parts)), len(parts) + 1):
        name = _clip(", ".join(parts[:count]))
        if name.casefold() not in used:
            return name
    name = _clip(", ".join(parts[:start]))
    return distinct(name, taken)


def distinct(name: str, taken: Collection[str]) -> str:
    """The name, numbered from 2 where it is taken already (case does not distinguish)."""
    used = {other.casefold() for other in taken}
    number, candidate = 1, name
    while candidate.casefold() in used:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def _clip(name: str) -> str:
    return name if len(name) <= MAX_LABEL_CHARS else name[: MAX_LABEL_CHARS - 1].rstrip(" ,") + "…"
