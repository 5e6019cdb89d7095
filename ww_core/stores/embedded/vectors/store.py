"""The vector port for any process of this user: it becomes the owner of the shard, or the client of who is."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.embedded.vectors import codec, forks
from ww_core.stores.embedded.vectors.calls import CALLS
from ww_core.stores.embedded.vectors.client import CALL_SECONDS, Client, OwnerGone
from ww_core.stores.embedded.vectors.codec import Arrays
from ww_core.stores.embedded.vectors.lock import Identity, OwnerLock
from ww_core.stores.embedded.vectors.server import Server
from ww_core.stores.embedded.vectors.shard import Shard
from ww_core.stores.ports import (
    Centroid,
    Fingerprint,
    Hit,
    Point,
    PointChange,
    Search,
    StoredVectors,
    VectorStore,
    Where,
)
from ww_core.stores.tiers import TieredVectors

log = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""How long a call looks for an owner, or for the chance to become one, before it gives up."""
FOREIGN_SECONDS = 1.0
"""How long the lock must stay in a stranger's name before it is believed: a new holder writes its own a bit later."""
COLD = "cold"
"""Directory of the archived vectors, in that of the others."""
SCRUB_SECONDS = 3600.0
"""How long a client waits for a scrub."""


class Owner:
    """Lock, shard and server of the process that owns."""

    def __init__(self, directory: Path, namespace: str, lock: OwnerLock, *, archive_cold: bool) -> None:
        self._directory = directory
        self._lock = lock
        # The socket comes first: clients find it and wait, however long a large shard takes to open.
        self._server = Server(directory)
        with ExitStack() as on_failure:
            on_failure.callback(self._server.close)
            hot = Shard(directory, namespace=namespace)
            on_failure.callback(hot.close)
            cold = Shard(directory / COLD, namespace=namespace, cold=True)
            on_failure.pop_all()
        writing = threading.RLock()
        self.shard = TieredVectors(hot, cold, archive_cold=archive_cold, writing=lambda: writing)
        self._server.serve(self.shard)

    def close(self) -> None:
        """Answer what is being asked, close the shard, and only then let the next process own."""
        try:
            self._server.close()
            self.shard.close()
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """In a child of the owner: leave shard, sockets and lock to the parent."""
        forks.immortal(self.shard)
        self._server.abandon()
        self._lock.forget()
        forks.close_files_below(self._directory)


class EdgeVectorStore:
    """A VectorStore in a data directory that several processes share. Nothing is touched before the first call.

    A call whose owner dies is made again to the next one: every call of the port may be repeated.
    """

    def __init__(self, directory: Path, *, namespace: str, archive_cold: bool = True) -> None:
        self._directory = directory
        self._namespace = namespace
        self._archive_cold = archive_cold
        self._lock = threading.RLock()
        self._role: Owner | Client | None = None
        forks.register(self)

    @classmethod
    def open(cls, data_dir: Path, *, namespace: str, archive_cold: bool = True) -> VectorStore:
        """The vectors of that namespace in the data directory, made at the first call. ``archive_cold`` is the owner's:
        whether archived ones lie in a cold shard of their own."""
        return cls(Path(data_dir).expanduser() / "vectors" / namespace, namespace=namespace, archive_cold=archive_cold)

    @property
    def owns(self) -> bool:
        """Whether this process is the owner now."""
        return isinstance(self._role, Owner)

    # -- the port

    def ping(self) -> None:
        self._call("ping", lambda shard: shard.ping())

    def close(self) -> None:
        """Let go of the shard or of the owner; the next call opens again."""
        with self._lock:
            role, self._role = self._role, None
            if role is not None:
                role.close()

    def ensure(self, fingerprint: Fingerprint) -> None:
        self._call("ensure", lambda shard: shard.ensure(fingerprint), lambda _: codec.pack_fingerprint(fingerprint))

    def upsert(self, points: Sequence[Point]) -> None:
        self._call("upsert", lambda shard: shard.upsert(points), lambda arrays: codec.pack_points(points, arrays))

    def change(self, changes: Sequence[PointChange]) -> None:
        self._call("change", lambda shard: shard.change(changes), lambda arrays: codec.pack_changes(changes, arrays))

    def set_cells(self, episode_ids: Sequence[str], cells: tuple[str, ...]) -> None:
        self._call(
            "set_cells", lambda shard: shard.set_cells(episode_ids, cells), lambda _: [list(episode_ids), list(cells)]
        )

    def delete(self, episode_ids: Sequence[str]) -> int:
        return self._call("delete", lambda shard: shard.delete(episode_ids), lambda _: list(episode_ids))

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        return self._call(
            "search", lambda shard: shard.search(searches), lambda arrays: codec.pack_searches(searches, arrays)
        )

    def generations(self, episode_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        return self._call("generations", lambda shard: shard.generations(episode_ids), lambda _: list(episode_ids))

    def vectors(self, episode_ids: Sequence[str], *, single: bool = False) -> StoredVectors:
        return self._call(
            "vectors", lambda shard: shard.vectors(episode_ids, single=single), lambda _: [list(episode_ids), single]
        )

    def pieces(self, episode_ids: Sequence[str]) -> dict[str, bytes]:
        return self._call("pieces", lambda shard: shard.pieces(episode_ids), lambda _: list(episode_ids))

    def walk(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[tuple[str, int]], str | None]:
        return self._call("walk", lambda shard: shard.walk(after=after, limit=limit), lambda _: [after, limit])

    def count(self, where: Where | None = None, *, exact: bool = True) -> int:
        return self._call(
            "count", lambda shard: shard.count(where, exact=exact), lambda _: [codec.pack_where(where), exact]
        )

    def put_centroids(self, centroids: Sequence[Centroid]) -> None:
        self._call(
            "put_centroids",
            lambda shard: shard.put_centroids(centroids),
            lambda arrays: codec.pack_centroids(centroids, arrays),
        )

    def centroids(self, session_id: str, attempt: str) -> list[Centroid]:
        return self._call(
            "centroids", lambda shard: shard.centroids(session_id, attempt), lambda _: [session_id, attempt]
        )

    def drop_centroids(self, session_id: str, *, keep: Sequence[str]) -> None:
        self._call(
            "drop_centroids",
            lambda shard: shard.drop_centroids(session_id, keep=keep),
            lambda _: [session_id, list(keep)],
        )

    def walk_centroids(self, *, after: str | None = None, limit: int = 1000) -> tuple[list[str], str | None]:
        return self._call(
            "walk_centroids", lambda shard: shard.walk_centroids(after=after, limit=limit), lambda _: [after, limit]
        )

    def drop_attempts(self, attempts: Sequence[str]) -> None:
        self._call("drop_attempts", lambda shard: shard.drop_attempts(attempts), lambda _: list(attempts))

    def scrub(self) -> None:
        self._call("scrub", lambda shard: shard.scrub(), timeout=SCRUB_SECONDS)

    def info(self) -> Mapping[str, Any]:
        facts: Mapping[str, Any] = self._call("info", lambda shard: shard.info())
        role = self._role
        owner = role.owner_pid if isinstance(role, Client) else os.getpid()
        return {**facts, "role": "owner" if self.owns else "client", "owner_pid": owner}

    # -- roles

    def _call(
        self,
        name: str,
        run: Callable[[VectorStore], T],
        pack: Callable[[Arrays], Any] = lambda _: None,
        *,
        timeout: float = CALL_SECONDS,
    ) -> T:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            role = self._find(deadline)
            if isinstance(role, Owner):
                return run(role.shard)
            arrays: Arrays = []
            given = pack(arrays)
            try:
                answer, received = role.call(name, given, arrays, timeout=timeout)
            except OwnerGone:
                self._lost(role)
                continue
            found: T = CALLS[name].unpack(answer, received)
            return found

    def _lost(self, client: Client) -> None:
        """Forget an owner that hung up."""
        with self._lock:
            if self._role is client:
                self._role = None
        client.close()

    def _find(self, deadline: float) -> Owner | Client:
        """The role of this process, decided anew where it has none."""
        role = self._role
        if role is not None:
            return role
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._nobody()
        try:
            if self._role is None:
                self._role = self._decide(deadline)
            return self._role
        finally:
            self._lock.release()

    def _decide(self, deadline: float) -> Owner | Client:
        lock = OwnerLock(self._directory)
        stranger_since: float | None = None
        pause = 0.01
        while True:
            owner = self._own(lock)
            if owner is not None:
                return owner
            holder = lock.holder()
            if holder is not None and not holder.same_machine(Identity.mine()):
                stranger_since = stranger_since or time.monotonic()
                if time.monotonic() - stranger_since >= FOREIGN_SECONDS:
                    raise ConfigurationError(
                        f"the vectors in {self._directory} are owned by process {holder.pid} on host {holder.host}",
                        hint="stop it, or use a data_dir of this host",
                    )
            else:
                stranger_since = None
                client = Client(self._directory)
                try:
                    client.connect()
                    return client
                except OwnerGone:
                    client.close()
                except BaseException:
                    client.close()
                    raise
            if time.monotonic() >= deadline:
                raise self._nobody()
            time.sleep(pause * random.uniform(0.5, 1.0))  # an owner is starting, ending or dying
            pause = min(pause * 2, 0.25)

    def _own(self, lock: OwnerLock) -> Owner | None:
        """Become the owner if nobody is. A fork waits until this is decided."""
        with forks.guard:
            try:
                self._prepare()
                if not lock.acquire():
                    return None
            except OSError as error:
                raise StoreUnavailable(
                    f"{self._directory} cannot be written: {error.strerror or error}",
                    hint="give this user a writable data_dir with free space",
                ) from error
            try:
                owner = Owner(self._directory, self._namespace, lock, archive_cold=self._archive_cold)
            except BaseException as error:
                lock.release()
                if isinstance(error, OSError) and not isinstance(error, StoreUnavailable):
                    raise StoreUnavailable(f"{self._directory} cannot be used: {error.strerror}") from error
                raise
            self._role = owner
        log.info("owns the vectors", extra={"action": "vectors.own", "directory": str(self._directory)})
        return owner

    def _prepare(self) -> None:
        """Make the directories, for this user alone."""
        self._directory.parent.parent.mkdir(parents=True, exist_ok=True)
        for directory in (self._directory.parent, self._directory):
            directory.mkdir(mode=0o700, exist_ok=True)
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)

    def _nobody(self) -> StoreUnavailable:
        holder = OwnerLock(self._directory).holder()
        who = "another process" if holder is None else f"process {holder.pid}"
        return StoreUnavailable(
            f"{who} owns the vectors in {self._directory} and did not answer within {PATIENCE_SECONDS:g} s",
            hint="it is stopped or overloaded; it can be killed, another process takes over",
        )

    def abandon(self) -> None:
        """In a child after a fork: start without a role."""
        self._lock = threading.RLock()
        role, self._role = self._role, None
        if role is not None:
            role.abandon()
