"""What this machine reaches, next to peers in the same run: the benchmarks of ``ww bench`` and tests/performance.

Importing this package loads no torch, sklearn or store.
"""

from ww.bench.figure import Figure, Scale
from ww.bench.registry import BENCHMARKS, measure

__all__ = ["BENCHMARKS", "Figure", "Scale", "measure"]
