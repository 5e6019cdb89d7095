"""What a run answers that had nothing to publish: the clusters that stand."""

from __future__ import annotations

from dataclasses import replace

from ww_core.models import Cluster, Run
from ww_core.stores.ports import GraphStore


def standing(current: Run | None) -> tuple[Cluster, ...]:
    """The visible clusters of a session, each kept as it is."""
    if current is None:
        return ()
    return tuple(replace(one, change="kept", parents=()) for one in current.clusters if one.change != "gone")


def answered(run: Run, graph: GraphStore) -> Run:
    """The run with the clusters that stand, where it found nothing new and so has none of its own."""
    if run.status != "done" or run.clusters:
        return run
    return replace(run, clusters=standing(graph.current_run(run.session_id)))
