"""All that is measured of consolidation: a sample's time, runs by what is stored, and how good the clusters are."""

from __future__ import annotations

from collections.abc import Iterator

from ww.bench import agreement, clustering, growth
from ww.bench.figure import Bench, Figure


def run(bench: Bench) -> Iterator[Figure]:
    """One figure after the other; on a tiny scale nothing is embedded and no clusters are judged."""
    yield from clustering.time_taken(bench)
    yield from growth.run(bench)
    yield from agreement.run(bench)
