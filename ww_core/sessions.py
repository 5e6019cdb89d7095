"""Whether anything was ever stored under the name of a session."""

from __future__ import annotations

from ww_core.errors import NotFound
from ww_core.stores.ports import GraphStore


def must_exist(graph: GraphStore, session_id: str | None) -> None:
    """Raises NotFound for a session that nothing was ever stored in: its name may be mistyped. None means none."""
    if session_id is not None and graph.counts(session_id).acknowledged == 0:
        raise NotFound(f"no session {session_id!r}", hint="sessions() or `ww sessions` lists what there is")
