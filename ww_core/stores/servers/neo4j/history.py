"""Publishing runs, taking them back, and clearing away what no state needs any more.

A session's pointer decides which places are visible; only flipping it changes what readers see, and that is one small
transaction. Everything else happens before or after in short steps, so that a crash anywhere leaves the old state or
the new one.
"""

from __future__ import annotations

from neo4j import Transaction

from ww_core.errors import Busy, InvalidInput
from ww_core.models import Run, attempt
from ww_core.stores.servers.neo4j import labels, runs
from ww_core.stores.servers.neo4j.leftovers import STEP, clear_leftovers, settle_fresh
from ww_core.stores.servers.neo4j.rows import Part, usable, value
from ww_core.stores.values import to_duration_us

RUN_RECORDS = 500
"""Runs of a session that stay listed; what they published is kept for fewer."""

_POINT = """MATCH (s:Session {ns: $ns, id: $session}) SET s.current = $version, s.leftovers = $leftovers
WITH s OPTIONAL MATCH (s)-[old:CURRENT]->() DELETE old
WITH DISTINCT s MATCH (r:Run {ns: $ns, session: $session, version: s.current}) CREATE (s)-[:CURRENT]->(r)"""
_BASE = "MATCH (r:Run {ns: $ns, id: $run}) SET r.base = $base"
_AT_VERSION = "MATCH (r:Run {ns: $ns, session: $session, version: $version}) RETURN r.id, coalesce(r.base, 0)"
_STATUS = "MATCH (r:Run {ns: $ns, id: $run}) SET r.status = $status RETURN properties(r)"
_OLDEST = (
    """MATCH (s:Session {ns: $ns, id: $session}) WHERE s.oldest_version < $oldest SET s.oldest_version = $oldest"""
)
_OLD_RUNS = """MATCH (r:Run) WHERE r.ns = $ns AND r.session = $session AND r.seq > 0
WITH r ORDER BY r.ns DESC, r.session DESC, r.seq DESC SKIP $records
WITH r WHERE coalesce(r.version, 0) < $oldest AND NOT r.status IN ['requested', 'running'] DETACH DELETE r"""
_ENDED = """MATCH (e:Episode)-[m:{type}]->() WHERE m.ns = $ns AND m.session = $session AND m.to <= $oldest
RETURN DISTINCT e.id LIMIT $step"""
_DELETE_ENDED = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) SET e.lock = true
WITH e MATCH (e)-[m:MEMBER_OF|NEAR]->() WHERE m.to <= $oldest
WITH e, m, m.from AS from DELETE m
WITH e, from MATCH (e)-[d:DUPLICATE_OF]->() WHERE d.from = from DELETE d"""


class History(Part):
    """Which run of a session is visible."""

    def publish(self, run: Run, *, token: str, lease_seconds: float = 0.0) -> bool:
        """See GraphStore."""

        def work(tx: Transaction) -> str | None:
            locked = tx.run(runs.LOCK_SESSION, ns=self._ns, session=run.session_id).single()
            ended = runs.record_end(tx, self._ns, run, token, self._given())
            if locked is None or ended is None:
                return None
            session, version = ended
            labels.write_clusters(tx, self._ns, run.run_id, session, version, run.clusters)
            tx.run(_BASE, ns=self._ns, run=run.run_id, base=locked["current"]).consume()
            if lease_seconds:
                expires_at = self._now(tx) + to_duration_us(lease_seconds)
                lease = {"token": token, "expires_at": expires_at, "holder": self._server.holders.mine()}
                tx.run(runs.HOLD, lease, ns=self._ns, run=run.run_id).consume()
            # start_run cleared everything else away, and what this run staged is what is visible now
            self._point(tx, session, version, leftovers=False)
            return session

        session = self._server.write(work)
        if session is None:
            return False
        settle_fresh(self._server, self._ns, session)
        return True

    def rollback_run(self, run_id: str, *, token: str | None = None) -> Run:
        """See GraphStore."""

        def work(tx: Transaction) -> tuple[str, int]:
            session = runs.get_run(tx, self._ns, run_id, self._given())["session"]
            pointer = tx.run(runs.LOCK_SESSION, ns=self._ns, session=session).single(strict=True)
            run = runs.get_run(tx, self._ns, run_id, self._given())
            version, base, current = run.get("version", 0), run.get("base", 0), pointer["current"]
            if version != current or not version:
                visible = value(tx, _AT_VERSION, ns=self._ns, session=session, version=current) if current else None
                hint = "nothing is published" if visible is None else f"the visible run is {visible}"
                raise InvalidInput(f"run {run_id} is not the visible run of its session", hint=hint)
            if base and base < pointer["oldest"]:
                raise InvalidInput(
                    f"the state before run {run_id} is no longer kept", hint="consolidation_keep_runs says how many are"
                )
            self._stop_abandoned(tx, session, token)
            tx.run(_STATUS, ns=self._ns, run=run_id, status="rolled_back").consume()
            self._point(tx, session, base, leftovers=True)
            return session, pointer["last"]

        session, last = self._server.write(work)
        clear_leftovers(self._server, self._ns, session, upto=last + 1)
        return self._server.read(lambda tx: runs.to_run(runs.get_run(tx, self._ns, run_id, self._given())))

    def prune_runs(self, session_id: str, keep: int) -> list[str]:
        """See GraphStore."""
        if keep < 1:
            raise InvalidInput(f"cannot keep {keep} runs", hint="1 or more")
        if not usable([session_id]):
            return []

        def work(tx: Transaction) -> list[tuple[str, int]]:
            locked = tx.run(runs.LOCK_SESSION, ns=self._ns, session=session_id).single()
            kept = [] if locked is None else self._chain(tx, session_id, locked["current"], locked["oldest"], keep)
            if kept:
                parameters = {"ns": self._ns, "session": session_id, "oldest": kept[-1][1], "records": RUN_RECORDS}
                tx.run(_OLDEST, parameters).consume()
                labels.drop_clusters(tx, self._ns, session_id, above=0, below=kept[-1][1])
                tx.run(_OLD_RUNS, parameters).consume()
            return kept

        kept = self._server.write(work)
        if not kept:
            return []
        bounds = {"ns": self._ns, "session": session_id, "oldest": kept[-1][1], "step": STEP}

        def step(tx: Transaction) -> int:
            found = [
                {row[0] for row in tx.run(_ENDED.format(type=relation), bounds)} for relation in ("MEMBER_OF", "NEAR")
            ]
            ids = sorted(set().union(*found))
            tx.run(_DELETE_ENDED, bounds, ids=ids).consume()
            return max(map(len, found))

        while self._server.write(step) == STEP:
            pass
        return [attempt(run_id, version) for run_id, version in kept]

    def _point(self, tx: Transaction, session: str, version: int, *, leftovers: bool) -> None:
        tx.run(_POINT, ns=self._ns, session=session, version=version, leftovers=leftovers).consume()

    def _stop_abandoned(self, tx: Transaction, session: str, token: str | None) -> None:
        now = self._now(tx)
        for run_id, expires_at, holder in tx.run(runs.HELD, ns=self._ns, session=session):
            if expires_at > now and holder != token:
                raise Busy(f"run {run_id} of the session is under way", hint="try again when it ends")
        tx.run(runs.VOID, ns=self._ns, session=session).consume()

    def _chain(self, tx: Transaction, session: str, version: int, oldest: int, keep: int) -> list[tuple[str, int]]:
        """(run id, version) of the visible run and those before it, as far as rollbacks reach and ``keep`` allows."""
        chain: list[tuple[str, int]] = []
        while version and version >= oldest and len(chain) < keep:
            run_id, base = tx.run(_AT_VERSION, ns=self._ns, session=session, version=version).single(strict=True)
            chain.append((run_id, version))
            version = base
        return chain
