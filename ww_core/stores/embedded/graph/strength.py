"""What recalls and forgetting leave in the rows: stability, and the archive flag."""

from __future__ import annotations

from collections.abc import Sequence

from ww_core.stores.embedded.graph import dirt
from ww_core.stores.embedded.graph.rows import Part, as_list
from ww_core.stores.ports import Dirty, Strength
from ww_core.stores.values import to_us

_ARCHIVE = """UPDATE episode SET archived = ?1 WHERE archived <> ?1 AND at IS NOT NULL
  AND episode_id IN (SELECT value FROM json_each(?2)) RETURNING seq"""


class Strengths(Part):
    """How well episodes are remembered."""

    def strengthen(self, changes: Sequence[Strength]) -> None:
        """See GraphStore."""
        with self._db.write() as db:
            db.executemany(
                """UPDATE episode SET stability = ?2, recalled_at = ?3
                  WHERE episode_id = ?1 AND at IS NOT NULL AND coalesce(recalled_at, ?3) <= ?3""",
                [(one.episode_id, one.stability, to_us(one.recalled_at)) for one in changes],
            )

    def archive(self, episode_ids: Sequence[str], *, archived: bool = True) -> int:
        """See GraphStore."""
        with self._db.write() as db:
            changed = [seq for (seq,) in db.execute(_ARCHIVE, (int(archived), as_list(episode_ids)))]
            if changed:
                dirt.mark(db, Dirty.PAYLOAD, changed)
            return len(changed)
