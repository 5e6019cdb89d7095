"""Reading episodes in order, and counting them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from neo4j import Transaction

from ww_core.models import Counts, Episode, SessionInfo, State, scalar_context
from ww_core.stores.ports import Place, Where, place_of
from ww_core.stores.servers.neo4j import queues
from ww_core.stores.servers.neo4j.dirt import SIDE
from ww_core.stores.servers.neo4j.outbox import FOR_EVER
from ww_core.stores.servers.neo4j.rows import (
    EPISODE,
    LAST_PLACE,
    Part,
    place_after,
    to_episode,
    to_place_of_time,
    usable,
    value,
)
from ww_core.stores.values import to_time, to_us

MERGED_SESSIONS = 32
"""Up to so many sessions are read one by one and merged; more are filtered out of the order over all sessions."""
BACKLOG_SAMPLE = 256
"""Rows looked at, at the head of each queue, for the age of the oldest."""
LOOKS = 20
"""How often the rows and the counters are read until they agree, while others store."""

_NEIGHBOURS = f"""MATCH (x:Episode {{ns: $ns, id: $id}}) WHERE x.place IS NOT NULL
CALL (x) {{
  MATCH (e:Episode) WHERE e.ns = x.ns AND e.session = x.session AND e.place < x.place
  RETURN e ORDER BY e.ns DESC, e.session DESC, e.place DESC LIMIT $before
  UNION ALL
  MATCH (e:Episode) WHERE e.ns = x.ns AND e.session = x.session AND e.place >= x.place
  RETURN e ORDER BY e.ns, e.session, e.place LIMIT $after
}} {EPISODE}"""
_AROUND = f"""UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) WHERE e.place IS NOT NULL
RETURN e.id, COLLECT {{ {SIDE.format(beyond="<", way="DESC")} RETURN p.id }}, COLLECT {{
  {SIDE.format(beyond=">", way="ASC")} RETURN p.id }}"""
_SESSIONS = """MATCH (s:Session) WHERE s.ns = $ns AND s.id >= ''
WITH s,
  COLLECT { MATCH (c:Counter) WHERE c.ns = $ns AND c.session = s.id AND c.shard >= 0
    RETURN sum(c.acknowledged) } AS made,
  COLLECT { MATCH (e:Erased) WHERE e.ns = $ns AND e.session = s.id RETURN count(e) } AS erased,
  COLLECT { MATCH (e:Episode) WHERE e.ns = $ns AND e.session = s.id AND e.place > ''
    RETURN e.at ORDER BY e.ns, e.session, e.place LIMIT 1 } AS first,
  COLLECT { MATCH (e:Episode) WHERE e.ns = $ns AND e.session = s.id AND e.place > ''
    RETURN e.at ORDER BY e.ns DESC, e.session DESC, e.place DESC LIMIT 1 } AS last,
  COUNT { MATCH ()-[f:FOUND]->() WHERE f.ns = $ns AND f.session = s.id AND f.version = s.current
    AND f.change <> 'gone' } AS clusters
WHERE size(first) > 0
RETURN s.id, made[0] - erased[0], first[0], last[0], clusters ORDER BY s.id"""
_ACKNOWLEDGED = """MATCH (c:Counter) WHERE c.ns = $ns AND c.session {of} AND c.shard >= 0
RETURN coalesce(sum(c.acknowledged), 0)"""
_IN_QUEUES = "MATCH (e:Episode) WHERE e.queue {of} AND e.t <= $end{session} RETURN count(e)"
_TOTALS = (
    "MATCH (e:Dead) WHERE e.ns = $ns AND e.id > ''{session} RETURN count(e)",
    "MATCH (e:Erased) WHERE e.ns = $ns AND e.session {of} RETURN count(e)",
)
_ROWS = "MATCH (e:Episode) WHERE e.ns = $ns AND e.id > '' RETURN count(e)"
_ROWS_OF_SESSION = """MATCH (e:Episode) WHERE e.ns = $ns AND e.session = $session AND e.place > '' RETURN count(e)"""
_MARK = "MATCH (c:Counter) WHERE c.ns = $ns AND c.session >= '' AND c.shard >= 0 RETURN coalesce(max(c.last), 0)"
_OPEN = """MATCH (e:Episode) WHERE e.queue {of} AND e.t <= $upto AND coalesce(e.seq, e.t) <= $mark RETURN 1 LIMIT 1"""
_HEAD = """CALL () { MATCH (e:Episode) WHERE e.queue {of} AND e.t <= $end
  RETURN coalesce(e.open_since, e.stored_at) AS since ORDER BY e.queue, e.t LIMIT $sample } RETURN min(since)"""


class Reading(Part):
    """Pages, neighbours, sessions and counts."""

    def page(
        self,
        where: Where,
        *,
        after: Place | None = None,
        limit: int = 500,
        newest_first: bool = False,
        states: Sequence[State] = (),
    ) -> list[Episode]:
        """See GraphStore. A filter by context reads until ``limit`` episodes fit."""
        conditions, parameters = _conditions(where, states)
        fragments = [_fragments(key, text) for key, text in where.context.items()]
        if fragments:
            conditions += " AND all(f IN $fragments WHERE e.context CONTAINS f[0] OR e.context CONTAINS f[1])"
            parameters["fragments"] = fragments
        low, high = _bounds(where, None if after is None else place_after(after), newest_first)
        sessions = usable(where.sessions)
        if where.sessions and not sessions:
            return []

        def read(tx: Transaction, prefix: str, order: str, session: str | None) -> list[Episode]:
            """One stream, page by page, since what the fragments let through need not fit."""
            found: list[Episode] = []
            bounds = {"low": low, "high": high}
            while True:
                query = f"{prefix} AND e.place > $low AND e.place < $high{conditions} {order} LIMIT $limit {EPISODE}"
                rows = list(tx.run(query, parameters, ns=self._ns, session=session, limit=limit, **bounds))
                rows.sort(key=lambda row: row["e"]["place"], reverse=newest_first)
                found += [episode for episode in map(to_episode, rows) if _fits(episode, where.context)]
                if len(rows) < limit or len(found) >= limit or not rows:
                    return found[:limit]
                bounds["high" if newest_first else "low"] = rows[-1]["e"]["place"]

        way = " DESC" if newest_first else ""
        in_session = "MATCH (e:Episode) WHERE e.ns = $ns AND e.session = $session"
        by_session = f"WITH e ORDER BY e.ns{way}, e.session{way}, e.place{way}"
        by_time = f"WITH e ORDER BY e.ns{way}, e.place{way}"

        def work(tx: Transaction) -> list[Episode]:
            if where.episode_ids:
                parameters["ids"], parameters["sessions"] = usable(where.episode_ids), sessions
                prefix = "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e.place IS NOT NULL"
                if sessions:
                    prefix += " AND e.session IN $sessions"
                return read(tx, prefix, f"WITH e ORDER BY e.place{way}", None)
            if not sessions:
                return read(tx, "MATCH (e:Episode) WHERE e.ns = $ns", by_time, None)
            if len(sessions) > MERGED_SESSIONS:
                parameters["sessions"] = sessions
                return read(tx, "MATCH (e:Episode) WHERE e.ns = $ns AND e.session IN $sessions", by_time, None)
            return [episode for name in sessions for episode in read(tx, in_session, by_session, name)]

        found = self._server.read(work)
        return sorted(found, key=place_of, reverse=newest_first)[:limit]

    def neighbours(self, episode_id: str, *, before: int, after: int) -> list[Episode]:
        """See GraphStore. Empty where there is no such episode."""
        if not usable([episode_id]):
            return []
        parameters = {"ns": self._ns, "id": episode_id, "before": before, "after": after + 1}
        rows = self._server.read(lambda tx: list(tx.run(_NEIGHBOURS, parameters)))
        return sorted(map(to_episode, rows), key=place_of)

    def around(self, episode_ids: Sequence[str], *, reach: int) -> dict[str, tuple[str | None, ...]]:
        """See GraphStore."""
        ids = usable(episode_ids)
        if not ids:
            return {}
        rows = self._server.read(lambda tx: list(tx.run(_AROUND, ns=self._ns, ids=ids, reach=reach)))
        missing: list[str | None] = [None] * reach
        found: dict[str, tuple[str | None, ...]] = {}
        for name, earlier, later in rows:
            found[name] = (*missing[len(earlier) :], *reversed(earlier), *later, *missing[len(later) :])
        return found

    def sessions(self) -> list[SessionInfo]:
        """See GraphStore. By name; sessions whose episodes are all erased are left out."""
        rows = self._server.read(lambda tx: list(tx.run(_SESSIONS, ns=self._ns)))
        found = [SessionInfo(name, made, to_time(first), to_time(last), k) for name, made, first, last, k in rows]
        return sorted(found, key=lambda session: session.session_id)

    def counts(self, session_id: str | None = None) -> Counts:
        """See GraphStore.

        ``acknowledged`` is a sum of counters written with every store; the states are counted from the rows themselves,
        so that a row that vanished unbalances the account. Reading is no snapshot here: rows and counters are read
        until the rows lie between two readings of the counters.
        """
        if session_id is not None and not usable([session_id]):
            return Counts(0, 0, 0, 0, 0, 0)
        return self._server.read(lambda tx: self._counts(tx, session_id))

    def _counts(self, tx: Transaction, session_id: str | None) -> Counts:
        of = "= $session" if session_id is not None else ">= ''"
        also = " AND e.session = $session" if session_id is not None else ""
        parameters = {"ns": self._ns, "session": session_id, "end": FOR_EVER}

        def count(query: str, **more: Any) -> int:
            return int(value(tx, query, **parameters, **more))

        def in_queues(prefix: str) -> int:
            return count(_IN_QUEUES.format(of="STARTS WITH $queue", session=also), queue=prefix)

        pending = leased = dead = erased = stored = upper = 0
        for _ in range(LOOKS):
            lower = count(_ACKNOWLEDGED.format(of=of))
            stored = count(_ROWS if session_id is None else _ROWS_OF_SESSION)
            leased = in_queues(queues.leased(self._ns))
            pending = sum(map(in_queues, (queues.new(self._ns), queues.later(self._ns), queues.lost(self._ns))))
            dead, erased = (count(query.format(of=of, session=also)) for query in _TOTALS)
            upper = count(_ACKNOWLEDGED.format(of=of))
            if session_id is not None:
                stored += erased
            if lower <= stored <= upper and stored >= pending + leased + dead + erased:
                return Counts(stored, pending, leased, stored - pending - leased - dead - erased, dead, erased)
        return Counts(upper, pending, leased, stored - pending - leased - dead - erased, dead, erased)

    def stored_mark(self) -> int:
        """See GraphStore. A time by the server's clock: rows stored later may be counted in where that clock is set
        back, never the other way round."""
        return int(self._server.read(lambda tx: value(tx, _MARK, ns=self._ns)))

    def settled(self, mark: int) -> bool:
        """See GraphStore."""

        def waits(tx: Transaction, prefix: str, upto: int) -> bool:
            query = _OPEN.format(of="STARTS WITH $queue")
            return value(tx, query, queue=prefix, upto=upto, mark=mark) is not None

        new, later, lost = queues.new(self._ns), queues.later(self._ns), queues.lost(self._ns)
        pending = ((new, mark), (lost, mark), (later, FOR_EVER))
        # reading is no snapshot: a row that is handed back meanwhile is found when pending rows are looked for again
        looks = (*pending, (queues.leased(self._ns), mark), *pending)
        return self._server.read(lambda tx: not any(waits(tx, *look) for look in looks))

    def oldest_pending(self) -> float | None:
        """See GraphStore."""
        heads = (queues.new, queues.later, queues.lost, queues.leased)
        query = _HEAD.replace("{of}", "STARTS WITH $queue")

        def work(tx: Transaction) -> float | None:
            parameters = {"end": FOR_EVER, "sample": BACKLOG_SAMPLE}
            found = [value(tx, query, queue=head(self._ns), **parameters) for head in heads]
            since = min((at for at in found if at is not None), default=None)
            return None if since is None else max(0.0, (self._now(tx) - since) / 1_000_000)

        return self._server.read(work)


def _bounds(where: Where, after: str | None, newest_first: bool) -> tuple[str, str]:
    """The open interval of places that a page comes from."""
    low = "" if where.since is None else to_place_of_time(to_us(where.since))
    high = LAST_PLACE if where.until is None else to_place_of_time(to_us(where.until))
    if after is not None:
        low, high = (low, min(high, after)) if newest_first else (max(low, after), high)
    return low, high


def _conditions(where: Where, states: Sequence[State]) -> tuple[str, dict[str, Any]]:
    parts, parameters = [""], dict[str, Any]()
    if where.outcomes:
        parts.append("e.outcome IN $outcomes")
        parameters["outcomes"] = usable(where.outcomes)
    if where.archived is not None:
        parts.append("coalesce(e.archived, false) = $archived")
        parameters["archived"] = where.archived
    if states:
        parts.append("e.state IN $states")
        parameters["states"] = [state.value for state in states]
    return " AND ".join(parts), parameters


def _fragments(key: str, text: str) -> list[str]:
    """How ``to_json`` writes the pair, with a text and with a bare value; it may still belong to a nested object."""
    name, shown = json.dumps(key, ensure_ascii=False), json.dumps(text, ensure_ascii=False)
    return [f"{name}:{shown}", f"{name}:{shown[1:-1]}"]


def _fits(episode: Episode, wanted: Any) -> bool:
    return not wanted or dict(wanted).items() <= scalar_context(episode.context).items()
