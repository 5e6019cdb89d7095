"""Metrics, error history and what is read from them."""

from ww_core.observability.history import ErrorHistory, Failure, LastFailure
from ww_core.observability.metrics import Metrics, Snapshot, StageFigures, process_metrics

__all__ = ["ErrorHistory", "Failure", "LastFailure", "Metrics", "Snapshot", "StageFigures", "process_metrics"]
