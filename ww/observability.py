"""The figures of this process."""

from __future__ import annotations

from ww_core.observability import Snapshot, process_metrics

__all__ = ["Snapshot", "get_metrics"]


def get_metrics() -> Snapshot:
    """The figures of this process now; ``float("nan")`` where nothing was measured."""
    return process_metrics().snapshot()
