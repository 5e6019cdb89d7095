"""Names of the clusters that results belong to, kept by run."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from ww_core.models import Episode
from ww_core.stores.ports import GraphStore

_MAX_SESSIONS = 200


class Labels:
    """Cluster labels by id, read once for each visible run. Thread-safe."""

    def __init__(self, graph: GraphStore) -> None:
        self._graph = graph
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[str, dict[str, str]]] = OrderedDict()

    def of(self, episodes: Sequence[Episode]) -> dict[str, str]:
        """Label by cluster id, for the clusters of ``episodes``."""
        sessions = sorted({episode.session_id for episode in episodes if episode.cluster_id})
        if not sessions:
            return {}
        labels: dict[str, str] = {}
        for session, attempt in self._graph.current_attempts(sessions).items():
            labels.update(self._of_run(session, attempt))
        return labels

    def _of_run(self, session: str, attempt: str) -> dict[str, str]:
        with self._lock:
            kept = self._kept.get(session)
            if kept is not None and kept[0] == attempt:
                self._kept.move_to_end(session)
                return kept[1]
        run = self._graph.current_run(session)
        labels = {cluster.cluster_id: cluster.label for cluster in run.clusters} if run is not None else {}
        if run is not None:
            with self._lock:
                self._kept[session] = (run.attempt, labels)
                while len(self._kept) > _MAX_SESSIONS:
                    self._kept.popitem(last=False)
        return labels
