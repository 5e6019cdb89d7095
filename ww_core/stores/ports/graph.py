"""The graph port: episodes, the outbox, clusters and runs. The record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from ww_core.models import Counts, DeadLetter, Episode, Fold, Run, SessionInfo, State
from ww_core.stores.ports.graph_records import (
    AddResult,
    Claim,
    Dirty,
    DirtyRow,
    Fresh,
    Membership,
    Moved,
    Place,
    ReadTexts,
    Standing,
    Strength,
)
from ww_core.stores.ports.where import Where


class GraphStore(Protocol):
    """Episodes, outbox, clusters and runs. The record."""

    def ping(self) -> None:
        """Return if the store answers. Raises StoreUnavailable."""

    def close(self) -> None: ...

    # -- episodes

    def add(self, episodes: Sequence[Episode]) -> list[AddResult]:
        """Write new episodes as pending, one result each in input order; one bad item refuses no other.

        Every episode has an id, a timestamp and valid fields. Two items with one id in a call are handled in order.
        """

    def get(self, episode_ids: Sequence[str]) -> dict[str, Episode]:
        """The episodes that exist and are not erased, with state, cluster and nearest as the current run sees them."""

    def page(
        self,
        where: Where,
        *,
        after: Place | None = None,
        limit: int = 500,
        newest_first: bool = False,
        states: Sequence[State] = (),
    ) -> list[Episode]:
        """One page ordered by (timestamp, position, episode_id); ``after`` is the last row of the page before."""

    def sessions(self) -> list[SessionInfo]: ...

    def neighbours(self, episode_id: str, *, before: int, after: int) -> list[Episode]:
        """The episode with its neighbours in its session's order; empty where it does not exist."""

    def around(self, episode_ids: Sequence[str], *, reach: int) -> dict[str, tuple[str | None, ...]]:
        """Ids of the neighbours of each episode that exists: from ``reach`` before it to ``reach`` after it in its
        session's order, the episode itself left out; None beyond either end of the session."""

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
        """Change what is given. New content makes the row pending again and voids any lease; anything else marks the
        payload dirty. Raises NotFound."""

    def counts(self, session_id: str | None = None) -> Counts: ...

    def stored_mark(self) -> int:
        """A number that rises with every row written; ``settled(mark)`` refers to it."""

    def settled(self, mark: int) -> bool:
        """Whether every row written up to ``mark`` is neither pending nor leased."""

    def oldest_pending(self) -> float | None:
        """Age in seconds of the oldest pending or leased row, None if there is none."""

    # -- outbox

    def claim(self, limit: int, *, token: str, lease_seconds: float) -> list[Claim]:
        """Lease up to ``limit`` pending rows that are due, oldest first, in one atomic step.

        Raises the generation and the deliveries of each. Rows whose lease expired before are handed out in halves of
        the group they were lost in, and finally alone. An empty answer does not prove that nothing is pending.
        """

    def extend(self, token: str, *, lease_seconds: float) -> int:
        """Renew the lease of every row that still carries ``token``; how many there are."""

    def mark_embedded(self, token: str, windows: Mapping[str, int]) -> set[str]:
        """Mark rows embedded (id -> number of windows) where the token still matches; the ids that were marked.

        Their payload is marked dirty where the row has a cluster cell or an archive flag to restore, and the context of
        the episode and of its session neighbours is marked dirty.
        """

    def release(self, token: str, episode_ids: Sequence[str], *, delay_seconds: float = 0.0) -> int:
        """Give leased rows back as pending without counting an attempt; due again after the delay."""

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
        """Count an attempt of a row held alone: pending again after the delay, or dead at ``max_attempts``.

        None where the token no longer matches.
        """

    def expire_leases(self, *, max_attempts: int) -> int:
        """Free rows whose lease ran out, by the store's own clock, or whose holder is known to be dead; the runs that
        the dead worked on are ``requested`` again. A row lost ``max_attempts`` times alone becomes dead with the error
        ``WorkerLost``. How many rows were freed or buried."""

    def reopen(self, episode_ids: Sequence[str]) -> int:
        """Make embedded rows pending again (their points are missing); how many."""

    def dead_letters(self, *, limit: int = 100, after: str | None = None) -> list[DeadLetter]:
        """By episode id."""

    def replay(self, episode_ids: Sequence[str] | None = None) -> int:
        """Make dead rows pending with fresh attempts; None means all."""

    def has_work(self) -> bool:
        """Whether a row is pending and due."""

    # -- dirty flags

    def dirty(self, kind: Dirty, limit: int) -> list[DirtyRow]: ...

    def clear_dirty(self, kind: Dirty, versions: Mapping[str, int]) -> None:
        """Clear the flag of each id where its version is still the given one; not the payload flag of an episode that a
        run under way has staged a new place for."""

    def mark_payload(self, episode_ids: Sequence[str]) -> None:
        """Mark the payload of the embedded ones dirty: what was written of it may not be what the record says."""

    # -- strengthening and decay

    def strengthen(self, changes: Sequence[Strength]) -> None:
        """Record recalls, each unless a later one is recorded already; ids that do not exist are passed over."""

    def archive(self, episode_ids: Sequence[str], *, archived: bool = True) -> int:
        """Set or lift the archive flag and mark the payload dirty; how many episodes that changed."""

    # -- erasure

    def tombstone(self, *, episode_ids: Sequence[str] = (), session_id: str | None = None) -> tuple[list[str], int]:
        """Erase content, context, memberships, dead letters, labels and medoids made of the episodes; leave a permanent
        tombstone whose vectors are still to be removed. A run of their sessions that is under way has read them: its
        token is void, and it is ``requested`` again; of a session that is left without episodes all runs go. Returns
        the ids erased now and the memberships removed."""

    def unfinished_tombstones(self, limit: int) -> list[str]:
        """Erased ids whose vectors may still exist."""

    def finish_tombstones(self, episode_ids: Sequence[str]) -> None: ...

    def scrub(self) -> None:
        """Rewrite what may still hold digests of erased texts, where that is a file of ours. As dear as writing them
        once more, so it goes with the vector store's (ww_core.maintenance.scrub)."""

    def unfinished_sessions(self, limit: int) -> list[str]:
        """Sessions erased whole whose centroids may still exist."""

    def finish_session(self, session_id: str) -> None:
        """Forget the name of a session erased whole: its tombstones are counted, and belong to none that anybody can
        ask for. Where something was stored in it since, it lives on and keeps its name."""

    # -- consolidation

    # A run whose lease has run out while it was ``running`` waits to be taken over: it is read as ``requested``.

    def request_run(self, session_id: str, *, window: str | None = None) -> Run:
        """The session's run of that window, made in state ``requested`` if it does not exist; without a window the
        session's requested run, or a new one. Raises NotFound where nothing was ever stored in the session."""

    def requested_runs(self, limit: int) -> list[Run]:
        """Runs waiting to be started, oldest first; also running ones whose lease expired."""

    def start_run(self, run_id: str, *, token: str, lease_seconds: float) -> Run:
        """Requested -> running under a lease. A running run whose lease expired is taken over and starts anew.

        What other runs of the session staged and did not publish is cleared away. Raises NotFound, and Busy where
        another run of the session holds a live lease, or where this one has ended.
        """

    def extend_run(self, run_id: str, *, token: str, lease_seconds: float, progress: float) -> bool:
        """False where the token is void: stop and change nothing."""

    def finish_run(self, run: Run, *, token: str) -> bool:
        """Record the end of a run that publishes nothing (failed, cancelled, nothing new)."""

    def return_run(self, run_id: str, *, token: str) -> bool:
        """Give up a run that others are to go on with: ``requested`` again, and what it staged is cleared away.

        False where the token is void.
        """

    def cancel_run(self, run_id: str) -> Run:
        """End a run as cancelled: its lease is void and what it staged is cleared away. The run as it is now.

        Raises NotFound, and Busy where it has ended.
        """

    def running_runs(self) -> list[Run]:
        """Runs under a live lease, those that started first before the others."""

    def folds(self, episode_ids: Sequence[str]) -> dict[str, Fold]:
        """Of each episode that others were folded into by the current run: it and they together."""

    def unconsolidated(self, session_id: str, *, limit: int, after: Place | None = None) -> list[Fresh]:
        """Embedded episodes of the session that the current run has no membership for, in session order."""

    def copies(self, session_id: str, digests: Sequence[bytes]) -> dict[bytes, str]:
        """Of each text (by ``ww_core.stores.texts.digest``) that the current run has placed in the session, archived
        or not, what its copies are folded into: the original of the one that was stored first, else that one itself.

        At a cost that does not depend on what is stored. Only what ``index_texts`` has gone through need be found.
        """

    def index_texts(self, session_id: str, *, limit: int) -> bool:
        """Let ``copies`` find what the current run has placed and it does not find yet, about ``limit`` of them;
        whether there may be more. Nothing of an erased or rewritten text stays findable."""

    def index_read(self, run_id: str, texts: Iterable[ReadTexts]) -> None:
        """Let ``copies`` find what the run has placed, from the texts that it has read itself, best in the order of
        their digests. Texts that changed since are left out; so is everything once the run is no longer visible. What
        is left, also where this was broken off, ``index_texts`` does. A store that needs no texts reads none."""

    def count_unconsolidated(self, session_id: str | None = None) -> dict[str, int]:
        """New episodes by session."""

    def memberships(
        self, session_id: str, *, after: str | None = None, limit: int = 1000, cluster_id: str | None = None
    ) -> list[Membership]:
        """Of the current run, in an order of the store's own; ``after`` is the last id of the page before."""

    def stage(self, run_id: str, *, token: str, memberships: Sequence[Membership]) -> bool:
        """Write memberships of a run that is not visible yet; only what differs from the current run need be staged.
        Repeating is harmless. False where the token is void."""

    def publish(self, run: Run, *, token: str, lease_seconds: float = 0.0) -> bool:
        """Write the run's clusters and make it the session's current run, in one step.

        False where the token is void. With ``lease_seconds`` the token keeps the session for so long, as ``hold_run``
        would.
        """

    def hold_run(self, run_id: str, *, token: str, lease_seconds: float) -> bool:
        """Keep the session to oneself while tidying up behind its visible run: no run of it starts and none is taken
        back until ``release_run``, or until the lease has run out. Renews what the token holds already.

        False where it is not to be had: a run of the session is under way or another token tidies up, or, but for a
        renewal, the run is not the visible one. A run of the session whose lease expired is ``requested`` again.
        """

    def release_run(self, run_id: str, *, token: str) -> None:
        """Give up what ``hold_run`` took, where the token still holds it."""

    def current_run(self, session_id: str) -> Run | None:
        """The visible run with its clusters."""

    def current_attempts(self, session_ids: Sequence[str] = ()) -> dict[str, str]:
        """``Run.attempt`` of the visible run by session, of the sessions that have one (all sessions where none is
        named). Pointers only: cheap enough for every query."""

    def standing(self) -> Standing:
        """What the visible runs of all sessions come to: a walk over sessions and their clusters, not over episodes."""

    def live_attempts(self, attempts: Sequence[str]) -> set[str]:
        """Those of the attempts that are under way or were published, and not taken back: by the latest state of the
        record, so that nothing is removed that a copy of it has not heard of yet."""

    def run(self, run_id: str) -> Run: ...

    def runs(self, session_id: str | None = None, *, limit: int = 50) -> list[Run]:
        """Newest first, without clusters."""

    def rollback_run(self, run_id: str, *, token: str | None = None) -> Run:
        """Make what was visible before the session's visible run visible again, exactly, but for what was erased or got
        new content since; the run's episodes are unconsolidated again and their payload dirty. The run as it is now.

        Raises NotFound, InvalidInput where the run is not the visible one or the state before it is no longer kept,
        and Busy while a run of the session holds a live lease, or anybody but ``token`` tidies up behind one.
        """

    def moved(self, run_id: str) -> list[Moved]:
        """What a published run placed otherwise than it was before, in any order; nothing of any other run."""

    def prune_runs(self, session_id: str, keep: int) -> list[str]:
        """Keep what the visible run and the ``keep - 1`` before it published and forget older states; the attempts
        that are kept, newest first. ``keep`` is 1 or more."""

    # -- small durable facts (beat ticks, sweep cursors, rolling figures)

    def get_fact(self, key: str) -> str | None: ...

    def put_fact(self, key: str, value: str) -> None: ...

    def facts(self, prefix: str, *, limit: int = 100) -> dict[str, str]:
        """Those whose keys begin so, by key."""

    def drop_fact(self, key: str) -> None:
        """Forget it, key and value; nothing where there is none."""
