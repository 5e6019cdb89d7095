"""How much each part of a score counts, from the settings and for the query at hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ww_core.config import Settings
from ww_core.stores.ports import BM25, BM25_CONTEXT, CONTENT, CONTEXT

NEIGHBOURS = "neighbours"
LATE = "late"
_WORDS = (BM25, BM25_CONTEXT)
_SEARCHED = (CONTENT, CONTEXT, *_WORDS)
_OTHERS = ("speaker", "date", "named", "recency", "outcome", "importance", "cluster", NEIGHBOURS, LATE)
_STAND_IN = 0.3
"""Share of the weight of the surroundings' words that falls to the episode's own words where the surroundings say
nothing."""
_OF_A_DAY = 2.0
"""The date's weight where the query names a day, as a multiple of that where it names a month or a year."""
_BESIDE_LATE = 0.4
"""Share of the neighbours' weight that stays beside late interaction, which reads their words already."""
_PROPOSES = 0.25
"""Share of the heaviest signal's weight from which a signal looks for candidates of its own; a lighter one only scores
those of the others, at a tenth of the cost."""


def proposing(names: Collection[str], weights: Mapping[str, float]) -> list[str]:
    """Those of the signals ``names`` that look for candidates.

    One that reads words is always among them: a name or a number is often known to the words alone.
    """
    heaviest = max((weights.get(name, 0.0) for name in names), default=0.0)
    words = max((name for name in names if name in _WORDS), key=lambda name: weights.get(name, 0.0), default=None)
    return [name for name in names if name == words or weights.get(name, 0.0) >= _PROPOSES * heaviest]


@dataclass(frozen=True, slots=True)
class Weights:
    """``parts`` by the name of the part, as the settings ``recall_weight_*`` have them."""

    parts: Mapping[str, float]

    @classmethod
    def of(cls, settings: Settings) -> Weights:
        """From the settings."""
        names = (*_SEARCHED, *_OTHERS)
        return cls(MappingProxyType({name: float(getattr(settings, f"recall_weight_{name}")) for name in names}))

    @property
    def dense(self) -> bool:
        """Whether any part needs the query's embedding."""
        return bool(self.parts[CONTENT] or self.parts[CONTEXT] or self.parts["cluster"])

    def effective(
        self, *, coherence: float, lexical: bool, read: bool = True, of_a_day: bool = False
    ) -> Mapping[str, float]:
        """The weights of one query.

        Surroundings count as far as the session is coherent (0 to 1); what the surroundings' words lose, the episode's
        own words take over in part. A ``lexical`` query has no dense vector: words alone decide. Without being ``read``
        piece by piece a query has no late interaction. The date counts for more in a query ``of_a_day``.
        """
        parts = dict(self.parts)
        surroundings = parts[BM25_CONTEXT]
        for name in (CONTEXT, BM25_CONTEXT, NEIGHBOURS):
            parts[name] *= coherence
        parts[BM25] += _STAND_IN * (surroundings - parts[BM25_CONTEXT])
        if of_a_day:
            parts["date"] *= _OF_A_DAY
        if not read:
            parts[LATE] = 0.0
        if parts[LATE] and not lexical:
            parts[NEIGHBOURS] *= _BESIDE_LATE
        if lexical:
            parts.update({CONTENT: 0.0, CONTEXT: 0.0, "cluster": 0.0, LATE: 0.0, BM25: 1.0, BM25_CONTEXT: coherence})
        return parts
