"""Results as JSON, as the contract's table of tasks says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ww_core.models import Change, Cluster, Receipt, Run, RunStatus, Verification


def receipt_json(receipt: Receipt) -> dict[str, Any]:
    return {"episode_id": receipt.episode_id, "state": receipt.state.value, "duplicate": receipt.duplicate}


def run_json(run: Run) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "session_id": run.session_id,
        "status": run.status,
        "considered": run.considered,
        "sampled": run.sampled,
        "assigned": run.assigned,
        "noise": run.noise,
        "folded": run.folded,
        "clusters": [
            {"cluster_id": c.cluster_id, "label": c.label, "size": c.size, "change": c.change} for c in run.clusters
        ],
        "seconds": run.seconds,
        "error": run.error,
    }


def run_from_json(data: Mapping[str, Any]) -> Run:
    """The run that a task returned; what the JSON does not hold has its default."""
    session = str(data["session_id"])
    return Run(
        run_id=str(data["run_id"]),
        session_id=session,
        status=cast(RunStatus, data["status"]),
        considered=int(data["considered"]),
        sampled=int(data["sampled"]),
        assigned=int(data["assigned"]),
        noise=int(data["noise"]),
        folded=int(data["folded"]),
        clusters=tuple(
            Cluster(str(c["cluster_id"]), session, str(c["label"]), int(c["size"]), change=cast(Change, c["change"]))
            for c in data["clusters"]
        ),
        seconds=float(data["seconds"]),
        error=data.get("error"),
    )


def verification_json(verification: Verification) -> dict[str, Any]:
    return {
        "ok": verification.ok,
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "expected": check.expected,
                "found": check.found,
                "examples": list(check.examples),
            }
            for check in verification.checks
        ],
    }
