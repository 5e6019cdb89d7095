"""What the visible runs of all sessions come to."""

from __future__ import annotations

from ww_core.stores.embedded.graph.rows import Part
from ww_core.stores.ports import Standing

_VISIBLE = "FROM session s CROSS JOIN run r ON r.session = s.session AND r.version = s.current WHERE s.current > 0"
_RUNS = f"SELECT count(*), coalesce(sum(r.considered), 0), coalesce(sum(r.noise), 0) {_VISIBLE}"
_LAST = f"SELECT r.sampled, r.seconds {_VISIBLE} ORDER BY r.finished_at DESC, r.run DESC LIMIT 1"
_CLUSTERS = """SELECT count(*), count(*) FILTER (WHERE c.change = 'merged'), count(*) FILTER (WHERE c.change = 'split')
  FROM session s CROSS JOIN cluster c ON c.session = s.session AND c.version = s.current
  WHERE s.current > 0 AND c.change <> 'gone'"""


class Standings(Part):
    """Figures of all visible runs together."""

    def standing(self) -> Standing:
        """See GraphStore."""
        with self._db.read() as db:
            sessions, considered, noise = db.execute(_RUNS).fetchone()
            if not sessions:
                return Standing()
            clusters, merged, split = db.execute(_CLUSTERS).fetchone()
            sampled, seconds = db.execute(_LAST).fetchone()
        return Standing(sessions, clusters, merged, split, considered, noise, sampled, seconds)
