"""How much each part of a score counts, from the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ww_core.config import Settings
from ww_core.stores.ports import BM25, BM25_CONTEXT, CONTENT, CONTEXT

_SEARCHED = (CONTENT, CONTEXT, BM25, BM25_CONTEXT)
_OTHERS = ("speaker", "date", "recency", "outcome", "importance", "cluster")


@dataclass(frozen=True, slots=True)
class Weights:
    """``signals`` by the name of the part; ``lexical`` the same for a query without a dense vector."""

    signals: Mapping[str, float]
    lexical: Mapping[str, float]
    neighbours: float

    @classmethod
    def of(cls, settings: Settings) -> Weights:
        """The settings ``recall_weight_*``. Without a model every kind of word match counts in full."""
        signals: dict[str, float] = {
            name: getattr(settings, f"recall_weight_{name}") for name in (*_SEARCHED, *_OTHERS)
        }
        lexical = signals | {CONTENT: 0.0, CONTEXT: 0.0, BM25: 1.0, BM25_CONTEXT: 1.0}
        return cls(
            signals=MappingProxyType(signals),
            lexical=MappingProxyType(lexical),
            neighbours=settings.recall_weight_neighbours,
        )

    def of_signals(self, *, lexical: bool) -> Mapping[str, float]:
        """The weights of a query with, or without, a dense vector."""
        return self.lexical if lexical else self.signals

    @property
    def dense(self) -> bool:
        """Whether any part needs the query's embedding."""
        return bool(self.signals[CONTENT] or self.signals[CONTEXT] or self.signals["cluster"])

    @property
    def cluster(self) -> float:
        """Of the similarity to the cluster."""
        return self.signals["cluster"]
