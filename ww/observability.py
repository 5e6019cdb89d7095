"""The figures of this process, and of the deployment it belongs to."""

from __future__ import annotations

from typing import Literal

from ww_core.errors import InvalidInput
from ww_core.observability import Snapshot, process_metrics

__all__ = ["Snapshot", "get_metrics"]


def get_metrics(scope: Literal["process", "deployment"] = "process") -> Snapshot:
    """The figures now, of this process or of all processes of the default deployment that published lately.

    Latencies and rates look back five minutes; what was not measured is ``float("nan")``. Raises InvalidInput.
    """
    if scope == "process":
        return process_metrics().snapshot()
    if scope != "deployment":
        raise InvalidInput(f"scope must be process or deployment, not {scope!r}")
    from ww.memory.default import current
    from ww_core.deployment import Deployment
    from ww_core.observability.watch import figures_of

    return figures_of(Deployment.of(current().settings))
