"""How a deployment is at this moment, as far as the graph store and the disk can tell."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ww_core.deployment import Deployment
from ww_core.masking import mask
from ww_core.models import Counts, Run

COUNTS = ("acknowledged", "pending", "leased", "embedded", "dead", "erased")


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """One store: ``kind`` of software, ``where`` it is, and its size on this disk (None for a server)."""

    kind: str
    where: str
    bytes: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """What ``ww status`` says about the stores. ``stores`` has ``graph`` and ``vectors``."""

    episodes: Counts
    oldest_pending_seconds: float | None
    last_run: Run | None
    stores: Mapping[str, StoreStatus]
    running: tuple[Run, ...] = ()
    """Consolidations under way, with their progress."""

    def of_session(self, counts: Counts) -> Status:
        """The same with the counts of one session."""
        return replace(self, episodes=counts)


def status_of(deployment: Deployment) -> Status:
    """Ask the graph store; the vector store is not opened, so that a look never takes its ownership."""
    graph, settings = deployment.graph, deployment.settings
    counts = graph.counts()
    runs = graph.runs(limit=1)
    if settings.neo4j_uri is None:
        record = StoreStatus("sqlite", str(settings.data_dir), _size(settings.data_dir, "*.sqlite3*"))
    else:
        record = StoreStatus("neo4j", mask(settings.neo4j_uri.get_secret_value()), None)
    if settings.qdrant_url is None:
        size = _size(settings.data_dir, "*") - _size(settings.data_dir, "*.sqlite3*")
        vectors = StoreStatus("qdrant-edge", str(settings.data_dir), size)
    else:
        vectors = StoreStatus("qdrant", mask(settings.qdrant_url.get_secret_value()), None)
    return Status(
        episodes=counts,
        oldest_pending_seconds=graph.oldest_pending(),
        last_run=runs[0] if runs else None,
        running=tuple(graph.running_runs()),
        stores={"graph": record, "vectors": vectors},
    )


def _size(folder: Path, pattern: str) -> int:
    """Bytes on disk of the files that match, below the folder; files and folders may go while we look."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in fnmatch.filter(names, pattern):
            with suppress(FileNotFoundError):
                # Blocks, as a shard's files are preallocated and mostly holes.
                total += os.lstat(os.path.join(inside, name)).st_blocks * 512
    return total
