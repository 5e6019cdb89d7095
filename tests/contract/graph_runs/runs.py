"""Runs of a graph store, made in one call, and what readers see of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tests.contract.graphs import START, ids
from ww_core.models import Cluster, Run
from ww_core.stores.ports import GraphStore, Membership

LEASE = 60.0


def start(graph: GraphStore, token: str = "t", session: str = "s") -> Run:
    return graph.start_run(graph.request_run(session).run_id, token=token, lease_seconds=LEASE)


def put(episode_id: str, cluster: str | None, distance: float = 0.25, original: str | None = None) -> Membership:
    return Membership(episode_id, cluster, cluster or "near", distance, original)


def cluster(name: str, size: int = 1, **parts: object) -> Cluster:
    return replace(Cluster(name, "s", f"label {name}", size, created_at=START), **parts)  # type: ignore[arg-type]


def publish(
    graph: GraphStore, memberships: Sequence[Membership], clusters: Sequence[Cluster] = (), token: str = "t"
) -> Run:
    run = start(graph, token)
    assert graph.stage(run.run_id, token=token, memberships=memberships)
    assert graph.publish(replace(run, status="done", clusters=tuple(clusters)), token=token)
    return run


def state(graph: GraphStore, session: str = "s") -> tuple[list[Membership], list[str], str | None, object]:
    """All that readers see of a session's consolidation."""
    current = graph.current_run(session)
    members = sorted(graph.memberships(session, limit=100_000), key=lambda m: m.episode_id)
    fresh = ids(graph.unconsolidated(session, limit=100_000))
    assert graph.count_unconsolidated().get(session, 0) == len(fresh)
    return members, fresh, current.run_id if current else None, current.clusters if current else None
