"""What fitted nowhere in a session's last run: kept as a fact, for later runs to look at again."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ww_core.stores.points import digest
from ww_core.stores.ports import GraphStore


def read_leftovers(graph: GraphStore, session_id: str) -> list[str]:
    """Ids of unclustered episodes that earlier runs set aside; a hint, checked against the memberships before use."""
    kept = graph.get_fact(_key(session_id))
    return [str(item) for item in json.loads(kept)] if kept else []


def write_leftovers(graph: GraphStore, session_id: str, episode_ids: Sequence[str]) -> None:
    """Keep these ids instead."""
    graph.put_fact(_key(session_id), json.dumps(list(episode_ids)))


def drop_leftovers(graph: GraphStore, session_id: str) -> None:
    """Forget them, and the session's digest with them."""
    graph.drop_fact(_key(session_id))


def _key(session_id: str) -> str:
    return f"consolidation.leftovers:{digest(session_id)}"
