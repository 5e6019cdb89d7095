"""Writing, fetching and correcting episodes."""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from neo4j import Transaction

from ww_core.errors import NotFound
from ww_core.models import Episode, State
from ww_core.stores.ports import Added, AddResult, Dirty
from ww_core.stores.servers.neo4j import dirt, queues
from ww_core.stores.servers.neo4j.membership import forget_memberships
from ww_core.stores.servers.neo4j.rows import EPISODE, NOW, Part, to_episode, to_place, usable, value
from ww_core.stores.texts import added_again, first_digest
from ww_core.stores.values import to_json, to_us

SHARDS = 16
"""Counters of one session: two stores that meet on one wait for each other's commit."""
SALT_BITS = 10

# The count of what was acknowledged is kept apart from the rows, so that a row that vanishes shows; it is kept in
# shards chosen at random, so that concurrent stores of one session seldom write to the same node. The session comes
# behind its counter: an erasure that removes both has locked every counter of the session first. A row's `t` orders
# the outbox; it ends in random bits of this attempt, which tell what it made from what was there, be it from an attempt
# before. What every new row would have alike (generation 0, no deliveries) is left out: fewer properties, more rows.
ADD = f"""{NOW}
UNWIND $rows AS row
WITH now, row, (clock + row.i) * {1 << SALT_BITS} + $salt AS t
MERGE (e:Episode {{ns: $ns, id: row.id}})
ON CREATE SET e.session = row.session, e.t = t, e.queue = $queue, e.state = 'pending', e.at = row.at,
  e.position = row.position, e.place = row.place, e.content = row.content, e.context = row.context,
  e.outcome = row.outcome, e.importance = row.importance, e.stored_at = now
WITH row.session AS session, t, e, coalesce(e.t = t, false) AS made
WITH session, max(t) AS last, sum(CASE WHEN made THEN 1 ELSE 0 END) AS created,
  collect(CASE WHEN NOT made THEN [e.id, e.state, e.session, e.content, e.first] END) AS known
ORDER BY session
CALL (session, last, created) {{
  WITH * WHERE created > 0
  MERGE (c:Counter {{ns: $ns, session: session, shard: $shard}})
    ON CREATE SET c.acknowledged = 0, c.last = 0
  SET c.lock = true
  SET c.acknowledged = c.acknowledged + created, c.last = CASE WHEN c.last > last THEN c.last ELSE last END
  MERGE (s:Session {{ns: $ns, id: session}})
    ON CREATE SET s.current = 0, s.last_version = 0, s.oldest_version = 0, s.leftovers = false
}}
WITH known WHERE size(known) > 0
UNWIND known AS item
RETURN item
"""
GET = f"UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) WHERE e.place IS NOT NULL {EPISODE}"
_LOCK_ONE = """MATCH (e:Episode {ns: $ns, id: $id}) SET e.lock = true
WITH e WHERE e.place IS NOT NULL
RETURN e.content AS content, e.position AS position, e.first AS first"""
_SET = "MATCH (e:Episode {ns: $ns, id: $id}) SET e += $values"
_REOPENED = f"""{NOW}
UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) SET e.lock = true
WITH e, now WHERE e.state IN $states
REMOVE e:Fresh, e:Dead
SET e.state = 'pending', e.queue = $queue, e.t = coalesce(e.seq, e.t), e.open_since = now, e.deliveries = 0,
  e.due = null,
  e.token = null, e.part = null, e.attempts = null, e.losses = null, e.died_of = null, e.traceback = null,
  e.failed_at = null
RETURN count(e)"""
_CREATED = AddResult(Added.CREATED, State.PENDING)


class Episodes(Part):
    """The record itself."""

    def add(self, episodes: Sequence[Episode]) -> list[AddResult]:
        """See GraphStore. One transaction, whatever the number of episodes."""
        first: dict[str, tuple[int, Episode]] = {}
        for i, episode in enumerate(episodes):
            first.setdefault(episode.episode_id, (i, episode))
        if not first:
            return []
        # in order of the ids, as all that write several rows do: they then wait for each other in one direction
        rows = [self._row(*first[name]) for name in sorted(first)]
        found = self._server.write(lambda tx: self._add(tx, rows), again=True, prompt=True)
        known: dict[str, tuple[str, str, str | None, str | None]] = {
            name: (state, session, content, digest) for name, state, session, content, digest in found
        }
        results: list[AddResult] = []
        for episode in episodes:
            if (seen := known.get(episode.episode_id)) is not None:
                results.append(_compare(episode, *seen))
                continue
            known[episode.episode_id] = (State.PENDING, episode.session_id, episode.content, None)
            results.append(_CREATED)
        return results

    def get(self, episode_ids: Sequence[str]) -> dict[str, Episode]:
        """See GraphStore."""
        ids = usable(episode_ids)
        if not ids:
            return {}
        rows = self._server.read(lambda tx: list(tx.run(GET, ns=self._ns, ids=ids)))
        found = {episode.episode_id: episode for episode in map(to_episode, rows)}
        return {name: found[name] for name in dict.fromkeys(episode_ids) if name in found}

    def update(
        self,
        episode_id: str,
        *,
        content: str | None = None,
        timestamp: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        outcome: str | None = None,
        importance: float | None = None,
    ) -> Episode:
        """See GraphStore. Content equal to what is stored changes nothing."""

        def work(tx: Transaction) -> Episode:
            row = tx.run(_LOCK_ONE, ns=self._ns, id=episode_id).single() if usable([episode_id]) else None
            if row is None:
                raise NotFound(f"no episode {episode_id!r}", hint="it was never stored, or was forgotten")
            values: dict[str, Any] = {"content": content, "outcome": outcome, "importance": importance}
            values = {key: value for key, value in values.items() if value is not None}
            if context is not None:
                values["context"] = to_json(context)
            around: list[str] = []
            if timestamp is not None:
                at = to_us(timestamp)
                around = dirt.neighbours_of(tx, self._ns, [episode_id])
                values |= {"at": at, "place": to_place(at, row["position"], episode_id)}
            replaced = content is not None and content != row["content"]
            if replaced and row["first"] is None:
                values["first"] = first_digest(episode_id, row["content"])
            tx.run(_SET, ns=self._ns, id=episode_id, values=values).consume()
            if timestamp is not None:
                # its old and its new neighbours have other surroundings now
                moved = {episode_id, *around, *dirt.neighbours_of(tx, self._ns, [episode_id])}
                dirt.mark(tx, self._ns, Dirty.CONTEXT, moved)
            # a worker may hold the old values of a leased row: its payload is stale, too
            if any(value is not None for value in (timestamp, context, outcome, importance)):
                dirt.mark(tx, self._ns, Dirty.PAYLOAD, [episode_id])
            if replaced:
                # what was derived from the old content goes
                forget_memberships(tx, self._ns, [episode_id])
                alive = [state for state in State if state is not State.ERASED]
                reopen(tx, self._ns, [episode_id], alive, self._given())
            return to_episode(tx.run(GET, ns=self._ns, ids=[episode_id]).single(strict=True))

        return self._server.write(work)

    def reopen(self, episode_ids: Sequence[str]) -> int:
        """See GraphStore. Memberships stay: the content is the same."""
        ids = usable(episode_ids)
        if not ids:
            return 0
        return self._server.write(lambda tx: reopen(tx, self._ns, ids, [State.EMBEDDED], self._given()))

    def _row(self, i: int, episode: Episode) -> dict[str, Any]:
        moment = episode.timestamp or (self._clock() if self._clock else datetime.now(UTC))
        at = to_us(moment)
        return {
            "i": i,
            "id": episode.episode_id,
            "session": episode.session_id,
            "at": at,
            "position": episode.position,
            "place": to_place(at, episode.position, episode.episode_id),
            "content": episode.content,
            "context": to_json(episode.context),
            "outcome": episode.outcome,
            "importance": episode.importance,
        }

    def _add(self, tx: Transaction, rows: list[dict[str, Any]]) -> list[list[str]]:
        found = tx.run(
            ADD,
            ns=self._ns,
            rows=rows,
            salt=secrets.randbits(SALT_BITS),
            queue=queues.new(self._ns),
            shard=random.randrange(SHARDS),
            now=self._given(),
        )
        return [record[0] for record in found]


def reopen(tx: Transaction, ns: str, ids: Sequence[str], states: Sequence[State], given: int | None) -> int:
    """Make the rows that are in one of the states pending again with fresh attempts; how many."""
    names = [state.value for state in states]
    return int(value(tx, _REOPENED, ns=ns, ids=sorted(ids), states=names, queue=queues.new(ns), now=given))


def _compare(episode: Episode, state: str, session_id: str, content: str | None, first: str | None) -> AddResult:
    if state == State.ERASED:
        return AddResult(Added.ERASED, State.ERASED)
    return AddResult(added_again(episode, session_id, content, first), State(state))
