"""The scaling tiers: which settings each preset switches, and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Switch:
    """One setting that a preset changes. With ``needs``, only where that setting is given too."""

    key: str
    value: Any
    why: str
    needs: str = ""


_MEDIUM = (
    Switch("embedding_cache_size", 10_000, "more distinct texts come back within the hour; about 15 MB"),
    Switch("hierarchical_search", True, "a flat search grows with the collection, a routed one with its root"),
)

_LARGE = (
    Switch("embedding_cache_size", 50_000, "several processes share one day's queries; about 75 MB each"),
    Switch("hierarchical_search", True, "a flat search grows with the collection, a routed one with its root"),
    Switch("cluster_selection_k", 5, "with more and finer clusters three of them hold a smaller share of the answers"),
    Switch("embedding_mode", "remote", "a dedicated query pool holds the model, applications stay small", "redis_url"),
    Switch("embedding_claim_size", 2_048, "fewer, larger claims: the graph store sees less traffic per episode"),
    Switch("consolidation_max_samples", 5_000, "more samples find smaller topics; still seconds a run"),
    Switch("consolidation_batch_size", 5_000, "assignment is one matrix product a batch"),
    Switch("neo4j_pool_size", 100, "several worker pools and applications read and write at once", "neo4j_uri"),
    Switch("qdrant_pool_size", 20, "several worker pools and applications read and write at once", "qdrant_url"),
)

_VERY_LARGE = (
    Switch("embedding_cache_size", 100_000, "about 150 MB a process, little beside the model"),
    Switch("hierarchical_search", True, "a flat search over millions costs more than the answer is worth"),
    Switch("cluster_selection_k", 8, "routing is cheap beside the search, and its recall grows with k"),
    Switch("embedding_mode", "remote", "the query pool scales by itself behind the broker", "redis_url"),
    Switch("embedding_claim_size", 4_096, "fewer, larger claims: the graph store sees less traffic per episode"),
    Switch("consolidation_max_samples", 10_000, "the largest sample whose clustering still takes seconds"),
    Switch("consolidation_batch_size", 10_000, "assignment is one matrix product a batch"),
    Switch("neo4j_pool_size", 200, "many worker processes; the cluster spreads them", "neo4j_uri"),
    Switch("qdrant_pool_size", 40, "many worker processes; the shards spread them", "qdrant_url"),
    Switch("qdrant_timeout", 60, "a search over many shards waits for the slowest one", "qdrant_url"),
)

PRESETS: dict[str, tuple[Switch, ...]] = {
    "small": (),
    "medium": _MEDIUM,
    "large": _LARGE,
    "very-large": _VERY_LARGE,
}
"""Episodes: ``small`` to 10 000 (the defaults), ``medium`` to 100 000, ``large`` to 1 000 000, ``very-large`` above."""


def switches(preset: str, given: Collection[str]) -> tuple[Switch, ...]:
    """The switches of ``preset`` that apply where the keys in ``given`` are set; none for an unknown preset."""
    return tuple(switch for switch in PRESETS.get(preset, ()) if not switch.needs or switch.needs in given)
