"""A process that drains a data directory and freezes itself (SIGSTOP) before the calls it is told to freeze at.

Usage: python -m tests.integration.drainer DATA_DIR LEASE_SECONDS [upsert] [mark_embedded]
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.maintenance.drain import Drain


class Freezing:
    """A store that stops the whole process once, just before one of its calls."""

    def __init__(self, store: Any, method: str) -> None:
        self._store, self._method = store, method

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            self._method = ""
            # to this very thread: it goes no further, and the others stop with it
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return getattr(self._store, name)


def main() -> None:
    directory, lease, *points = sys.argv[1:]
    deployment = Deployment(Settings(data_dir=directory, embedding_lease=float(lease)))
    graph: Any = deployment.graph
    vectors: Any = deployment.vectors
    if "upsert" in points:
        vectors = Freezing(vectors, "upsert")
    if "mark_embedded" in points:
        graph = Freezing(graph, "mark_embedded")
    drain = Drain(graph, vectors, deployment.embedding, deployment.settings, deployment.metrics)
    report = drain.run(max_seconds=120)
    print(report.embedded, flush=True)
    deployment.close()


if __name__ == "__main__":
    main()
