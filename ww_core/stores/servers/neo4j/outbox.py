"""The outbox: pending episodes are leased to workers, and come back from them embedded, dead, or not at all."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from neo4j import Record, Transaction

from ww_core.models import DeadLetter, State
from ww_core.stores.ports import Claim, Dirty
from ww_core.stores.servers.neo4j import dirt, queues
from ww_core.stores.servers.neo4j.episodes import reopen
from ww_core.stores.servers.neo4j.rows import EPISODE, NOW, VISIBLE, Part, next_version, to_episode, usable
from ww_core.stores.values import to_duration_us, to_time

FOR_EVER = 2**62

CLAIM_LOOKS = 3
"""Transactions that one claim tries before it answers that it got nothing."""
CLAIM_SPREAD = 6
"""How many claims behind the head of the queue the second look goes at most."""

DUE = "coalesce(e.due, 0) <= {now}"
_PEEK = f"""{NOW}
RETURN now,
  COLLECT {{ MATCH (e:Episode) WHERE e.queue STARTS WITH $lost AND e.t IS NOT NULL AND {DUE.format(now="now")}
    RETURN e.queue ORDER BY e.queue, e.t LIMIT 1 }} AS lost,
  EXISTS {{ MATCH (e:Episode) WHERE e.queue = $later AND e.t <= now }} AS later,
  EXISTS {{ MATCH (e:Episode) WHERE e.queue = $new AND e.t <= {FOR_EVER} }} AS new"""
_SIZE = f"""MATCH (e:Episode) WHERE e.queue = $queue AND e.t <= {FOR_EVER} AND {DUE.format(now="$now")}
RETURN count(e)"""
CHOOSE = f"""MATCH (e:Episode) WHERE e.queue = $queue AND e.t <= $upto AND {DUE.format(now="$now")}
WITH e ORDER BY e.queue, e.t SKIP $skip LIMIT $limit
SET e.lock = true
"""
LOOK_AGAIN = "WITH e WHERE e.state = 'pending' AND e.queue = $queue\n"
"""Reading locks nothing: between the choice and the lock, another worker may have taken the row."""
TAKE = f"""{CHOOSE}{LOOK_AGAIN}
SET e.state = 'leased', e.queue = $lease, e.seq = coalesce(e.seq, e.t), e.t = coalesce(e.seq, e.t),
  e.due = null, e.token = $token, e.generation = coalesce(e.generation, 0) + 1,
  e.deliveries = coalesce(e.deliveries, 0) + 1
WITH collect(e) AS taken WHERE size(taken) > 0
MERGE (l:Lease {{ns: $ns, id: $lease}})
  ON CREATE SET l.token = $token, l.expires_at = $expires_at, l.alone = $alone, l.holder = $holder
WITH taken UNWIND taken AS e {EPISODE}"""
_EXTEND = f"""{NOW}
MATCH (l:Lease {{ns: $ns, token: $token}}) SET l.expires_at = now + $duration
WITH l.id AS queue MATCH (e:Episode) WHERE e.queue = queue AND e.t <= {FOR_EVER} RETURN count(e)"""
_HELD = "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e.token = $token RETURN e.id"
_LOCK = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e WHERE e.token = $token RETURN e.id"""
_MARK = f"""{NOW}
UNWIND $rows AS row MATCH (e:Episode {{ns: $ns, id: row[0]}})
MATCH (s:Session {{ns: $ns, id: e.session}})
WITH e, row, now, EXISTS {{ MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE {VISIBLE} }} AS placed
SET e.state = 'embedded', e.queue = null, e.t = null, e.due = null, e.token = null, e.part = null, e.deliveries = 0,
  e.attempts = null, e.losses = null, e.windows = row[1], e.embedded_at = now
FOREACH (_ IN CASE WHEN placed OR e.archived THEN [1] ELSE [] END | SET e.payload_dirty = row[2])
FOREACH (_ IN CASE WHEN placed THEN [] ELSE [1] END | SET e:Fresh)"""
_RELEASE = f"""{NOW}
UNWIND $ids AS id MATCH (e:Episode {{ns: $ns, id: id}}) SET e.lock = true
WITH e, now WHERE e.token = $token
SET e.state = 'pending', e.token = null,
  e.due = CASE WHEN $delay > 0 THEN now + $delay END,
  e.t = CASE WHEN $delay > 0 AND e.part IS NULL THEN now + $delay ELSE e.seq END,
  e.queue = coalesce(e.part, CASE WHEN $delay > 0 THEN $later ELSE $new END)
RETURN count(e)"""
_ATTEMPT = """MATCH (e:Episode {ns: $ns, id: $id}) SET e.lock = true
WITH e WHERE e.token = $token SET e.attempts = coalesce(e.attempts, 0) + 1 RETURN e.attempts"""
_BURY = f"""{NOW}
MATCH (e:Episode {{ns: $ns, id: $id}})
SET e:Dead, e.state = 'dead', e.queue = null, e.t = null, e.due = null, e.token = null, e.part = null,
  e.attempts = $attempts, e.died_of = $error, e.traceback = $traceback, e.failed_at = now"""
_HOLDERS = """MATCH (l:Lease) WHERE l.ns = $ns AND l.expires_at > 0 RETURN l.holder AS holder
UNION MATCH (r:Run) WHERE r.ns = $ns AND r.open IN ['running', 'held'] AND r.token IS NOT NULL
RETURN r.holder AS holder"""
_LEASES_OF_THE_DEAD = """MATCH (l:Lease) WHERE l.ns = $ns AND l.expires_at > 0 AND l.holder IN $dead
WITH l ORDER BY l.id SET l.expires_at = 0"""
_RUNS_OF_THE_DEAD = """MATCH (r:Run) WHERE r.ns = $ns AND r.open IN ['running', 'held'] AND r.holder IN $dead
WITH r ORDER BY r.id SET r.lock = true
WITH r WHERE r.token IS NOT NULL AND r.holder IN $dead SET r.expires_at = 0
WITH r WHERE r.status = 'running' SET r.status = 'requested', r.open = 'requested', r.token = null, r.progress = 0.0"""
_EXPIRED = f"""{NOW}
MATCH (l:Lease) WHERE l.ns = $ns AND l.expires_at <= now RETURN l.id ORDER BY l.id"""
_LOCK_LEASE = f"""{NOW}
MATCH (l:Lease {{ns: $ns, id: $lease}}) SET l.lock = true
WITH l, now WHERE l.expires_at <= now RETURN l.alone, now"""
_ROWS = f"MATCH (e:Episode) WHERE e.queue = $lease AND e.t <= {FOR_EVER} RETURN e.id"
_LOCK_ROWS = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e WHERE e.queue = $lease RETURN e.id, e.seq, coalesce(e.losses, 0) AS losses"""
_LOST = """UNWIND $rows AS row MATCH (e:Episode {ns: $ns, id: row[0]})
SET e.state = 'pending', e.token = null, e.due = null, e.t = e.seq, e.queue = row[1], e.part = row[1],
  e.losses = row[2]"""
_DROP_LEASE = "MATCH (l:Lease {ns: $ns, id: $lease}) DELETE l"
_LETTERS = """MATCH (e:Dead) WHERE e.ns = $ns AND e.id > $after
RETURN e.id, e.session, e.attempts, e.died_of, e.traceback, e.failed_at ORDER BY e.ns, e.id LIMIT $limit"""
_DEAD = "MATCH (e:Dead) WHERE e.ns = $ns AND e.id > '' RETURN e.id"


class Outbox(Part):
    """Claims with lease, generation and fencing.

    A claimed row carries the claim's token, and its queue is the lease's own: rows are fenced by the token, and found
    by the queue when the lease expires.
    """

    def has_work(self) -> bool:
        """See GraphStore."""
        look = self._server.read(self._peek)
        return bool(look["lost"] or look["later"] or look["new"])

    def claim(self, limit: int, *, token: str, lease_seconds: float) -> list[Claim]:
        """See GraphStore."""
        if limit < 1:
            return []

        skip, holder = 0, self._server.holders.mine()

        def work(tx: Transaction) -> tuple[list[Record], bool, bool]:
            look = self._peek(tx)
            now: int = look["now"]
            lease = queues.lease(self._ns, uuid4().hex)

            def take(queue: str, number: int, *, upto: int = FOR_EVER, alone: bool = False) -> list[Record]:
                expires_at = now + to_duration_us(lease_seconds)
                parameters = {"ns": self._ns, "queue": queue, "skip": 0, "limit": number, "upto": upto, "now": now}
                if queue == queues.new(self._ns):
                    parameters["skip"] = skip
                return list(
                    tx.run(
                        TAKE, parameters, lease=lease, token=token, expires_at=expires_at, alone=alone, holder=holder
                    ),
                )

            if look["lost"]:
                # never mixed with others: the part of a lost lease that kills workers shows by being lost again
                (queue,) = look["lost"]
                size = tx.run(_SIZE, queue=queue, now=now).single(strict=True)[0]
                return take(queue, limit, alone=size == 1), size == 1, False
            rows = take(queues.later(self._ns), limit, upto=now) if look["later"] else []
            if look["new"] and len(rows) < limit:
                rows += take(queues.new(self._ns), limit - len(rows))
            return rows, False, look["new"]

        for _ in range(CLAIM_LOOKS):
            rows, alone, more = self._server.write(work)
            if rows or not more:
                break
            # others took the head of the queue while this claim waited for its locks: look where fewer of them stand
            skip = limit * random.randint(1, CLAIM_SPREAD)
        return [
            Claim(
                to_episode(row),
                token,
                generation=row["e"]["generation"],
                deliveries=row["e"]["deliveries"],
                alone=alone,
            )
            for row in sorted(rows, key=lambda row: (row["e"]["seq"], row["e"]["id"]))
        ]

    def extend(self, token: str, *, lease_seconds: float) -> int:
        """See GraphStore."""
        duration = to_duration_us(lease_seconds)

        def work(tx: Transaction) -> int:
            return int(
                tx.run(_EXTEND, ns=self._ns, token=token, duration=duration, now=self._given()).single(strict=True)[0]
            )

        return self._server.write(work, again=True)

    def mark_embedded(self, token: str, windows: Mapping[str, int]) -> set[str]:
        """See GraphStore."""
        ids = usable(windows)
        if not ids:
            return set()

        def work(tx: Transaction) -> set[str]:
            # before anything is locked: an episode embedded meanwhile marks itself dirty
            mine = [row[0] for row in tx.run(_HELD, ns=self._ns, ids=ids, token=token)]
            around = {*mine, *dirt.neighbours_of(tx, self._ns, mine)} if mine else set()
            # all that will be written, in the order in which everybody locks
            held = {row[0] for row in tx.run(_LOCK, ns=self._ns, ids=sorted(around), token=token)} & set(mine)
            if held:
                dirt.mark(tx, self._ns, Dirty.CONTEXT, around - (set(mine) - held))
                rows = [[name, windows[name], i] for i, name in enumerate(sorted(held), next_version())]
                tx.run(_MARK, ns=self._ns, rows=rows, now=self._given()).consume()
            return held

        return self._server.write(work)

    def release(self, token: str, episode_ids: Sequence[str], *, delay_seconds: float = 0.0) -> int:
        """See GraphStore. Rows of a lost lease stay with the part of it they were handed out with."""
        ids = usable(episode_ids)
        return self._server.write(lambda tx: self._release(tx, token, ids, delay_seconds)) if ids else 0

    def fail(
        self,
        token: str,
        episode_id: str,
        *,
        error: str,
        traceback: str,
        max_attempts: int,
        delay_seconds: float,
    ) -> State | None:
        """See GraphStore."""
        if not usable([episode_id]):
            return None

        def work(tx: Transaction) -> State | None:
            row = tx.run(_ATTEMPT, ns=self._ns, id=episode_id, token=token).single()
            if row is None:
                return None
            if row[0] >= max_attempts:
                self._bury(tx, episode_id, attempts=row[0], error=error, traceback=traceback)
                return State.DEAD
            self._release(tx, token, [episode_id], delay_seconds)
            return State.PENDING

        return self._server.write(work)

    def expire_leases(self, *, max_attempts: int) -> int:
        """See GraphStore. One transaction for each lease."""
        self._forfeit()
        found = self._server.read(lambda tx: list(tx.run(_EXPIRED, ns=self._ns, now=self._given())))
        return sum(self._expire(row[0], max_attempts) for row in found)

    def dead_letters(self, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """See GraphStore."""
        rows = self._server.read(lambda tx: list(tx.run(_LETTERS, ns=self._ns, after=after or "", limit=limit)))
        return [
            DeadLetter(name, session, attempts, error, traceback, to_time(at))
            for name, session, attempts, error, traceback, at in rows
        ]

    def replay(self, episode_ids: Sequence[str] | None = None) -> int:
        """See GraphStore."""

        def work(tx: Transaction) -> int:
            ids = sorted(row[0] for row in tx.run(_DEAD, ns=self._ns)) if episode_ids is None else usable(episode_ids)
            return reopen(tx, self._ns, ids, [State.DEAD], self._given())

        return self._server.write(work)

    def _peek(self, tx: Transaction) -> Record:
        """The store's time, and what could be claimed now."""
        lost, later, new = queues.lost(self._ns), queues.later(self._ns), queues.new(self._ns)
        return tx.run(_PEEK, lost=lost, later=later, new=new, now=self._given()).single(strict=True)

    def _release(self, tx: Transaction, token: str, ids: Sequence[str], delay_seconds: float) -> int:
        parameters: dict[str, Any] = {"later": queues.later(self._ns), "new": queues.new(self._ns)}
        delay = to_duration_us(max(delay_seconds, 0))
        row = tx.run(
            _RELEASE, parameters, ns=self._ns, ids=list(ids), token=token, delay=delay, now=self._given()
        ).single(strict=True)
        return int(row[0])

    def _bury(self, tx: Transaction, episode_id: str, *, attempts: int, error: str, traceback: str) -> None:
        parameters: dict[str, Any] = {"attempts": attempts, "error": error, "traceback": traceback}
        tx.run(_BURY, parameters, ns=self._ns, id=episode_id, now=self._given()).consume()

    def _forfeit(self) -> None:
        """End the leases and runs of processes of this machine that are gone."""
        holders = self._server.holders
        left = holders.left()  # before looking for what they held: who dies in between is left for the next time
        named = self._server.read(lambda tx: [row[0] for row in tx.run(_HOLDERS, ns=self._ns) if row[0]])
        dead = holders.dead(named)
        if dead:

            def work(tx: Transaction) -> None:
                tx.run(_LEASES_OF_THE_DEAD, ns=self._ns, dead=dead).consume()
                tx.run(_RUNS_OF_THE_DEAD, ns=self._ns, dead=dead).consume()

            self._server.write(work, again=True)
        holders.tidy(left)

    def _expire(self, lease: str, max_attempts: int) -> int:
        def work(tx: Transaction) -> int:
            found = tx.run(_LOCK_LEASE, ns=self._ns, lease=lease, now=self._given()).single()
            if found is None:
                return 0
            alone, now = found
            ids = sorted(row[0] for row in tx.run(_ROWS, lease=lease))
            rows = sorted(
                (
                    (seq, name, losses + alone)
                    for name, seq, losses in tx.run(_LOCK_ROWS, ns=self._ns, ids=ids, lease=lease)
                )
            )
            buried = [row for row in rows if alone and row[2] >= max_attempts]
            for _, name, losses in buried:
                error = f"WorkerLost: {losses} workers that held only this episode stopped without a word"
                self._bury(tx, name, attempts=losses, error=error, traceback="")
            kept = [row for row in rows if row not in buried]
            # rows that were lost together are handed out in two halves
            middle = (len(kept) + 1) // 2
            parts = [queues.part(self._ns, now, number) for number in range(2)]
            values = sorted([name, parts[i >= middle], losses] for i, (_, name, losses) in enumerate(kept))
            tx.run(_LOST, ns=self._ns, rows=values).consume()
            tx.run(_DROP_LEASE, ns=self._ns, lease=lease).consume()
            return len(rows)

        return self._server.write(work)
