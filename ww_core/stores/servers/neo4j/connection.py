"""One Neo4j server as several threads and processes use it: the pool, transactions, retries, errors and fork."""

from __future__ import annotations

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from pathlib import Path
from ssl import PROTOCOL_TLS_CLIENT, SSLContext
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from neo4j import READ_ACCESS, WRITE_ACCESS, Driver, GraphDatabase, Transaction, TrustCustomCAs
from neo4j.api import BookmarkManager
from neo4j.exceptions import DriverError, Neo4jError

from ww_core.config import Settings
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.holders import HoldersElsewhere
from ww_core.stores.servers.neo4j import failures
from ww_core.stores.servers.neo4j.call import Call
from ww_core.stores.servers.neo4j.migrations import migrate
from ww_core.version import VERSION

CONNECT_SECONDS = 5.0
"""How long one connection may take to be made."""
IDLE_SECONDS = 60.0
"""A connection idle for longer is tried out before it is used: a firewall may have dropped it."""
PATIENCE_SECONDS = 20.0
"""After so long without an answer a call looks whether the server answers at all. One that is stopped, or cut off,
keeps its connections and says nothing, and the driver waits for as long as the server promised to give a sign of life,
120 s. A store gives up then in any case; a query that takes its time is waited for."""
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
"""Seconds before the first and before any further repetition of a transaction, at most; jittered."""

T = TypeVar("T")

log = logging.getLogger(__name__)

_servers: weakref.WeakSet[Server] = weakref.WeakSet()
_outlived: list[Driver] = []
"""Drivers of a parent process: closing them in a child would end the parent's sessions."""


def ignored(share: float) -> None:
    """Told how much of the pool is in use, where nobody measures it."""


class Server:
    """Transactions on the server that ``settings`` names. Connects at the first call; thread-safe; a child process
    connects anew, and so does the first call after the server came back. ``on_use``: see Neo4jGraphStore."""

    def __init__(self, settings: Settings, *, on_use: Callable[[float], None] = ignored) -> None:
        uri = settings.neo4j_uri
        if uri is None:
            raise ConfigurationError("no Neo4j server is set", hint="set neo4j_uri")
        self._settings = settings
        parts = urlsplit(uri.get_secret_value())
        userinfo, _, self.place = parts.netloc.rpartition("@")
        # the driver takes no password in a URI, and would show it in its error
        self._uri = parts._replace(netloc=self.place).geturl()
        self._auth = _credentials(settings, userinfo)
        self._lock = threading.RLock()
        self._opening = threading.Lock()
        self._driver: Driver | None = None
        self._bookmarks: BookmarkManager | None = None
        self._slots = threading.Semaphore(settings.neo4j_pool_size)
        self._in_use = 0
        self._on_use = on_use
        self._closed = 0
        self._silent = False
        self.holders = HoldersElsewhere(settings.data_dir / f"neo4j-{settings.namespace}-holders")
        _servers.add(self)

    @property
    def utilisation(self) -> float:
        """Connections in use as a share of ``neo4j_pool_size``, 0 to 1."""
        return min(1.0, self._in_use / self._settings.neo4j_pool_size)

    def read(self, work: Callable[[Transaction], T]) -> T:
        """What ``work`` returns, from one transaction that only reads; ``work`` may be called several times."""
        return self._run(work, READ_ACCESS, again=True, prompt=False)

    def write(self, work: Callable[[Transaction], T], *, again: bool = False, prompt: bool = False) -> T:
        """What ``work`` returns, from one transaction, durable when this returns; ``work`` may be called several times.

        ``again``: also where the connection broke during a commit whose outcome is unknown; ``work`` then gives the
        same answer whether it was done or not. ``prompt``: it never takes long, so PATIENCE_SECONDS is the end.
        """
        return self._run(work, WRITE_ACCESS, again=again, prompt=prompt)

    def _attended(self, work: Callable[[Transaction], T], call: Call, *, prompt: bool) -> T:
        """What one attempt returns, made on a thread of its own: one that is stuck in the driver is left behind, and
        changes nothing where it comes free later.

        Raises StoreUnavailable where the server says nothing, or takes too long for a ``prompt`` call.
        """
        if self._silent:  # one call has found out: the others need not wait as long
            self._hear(call, CONNECT_SECONDS)
        slots = self._slot(call)
        answer: Future[T] = Future()

        def run() -> None:
            try:
                try:
                    found = self._attempt(work, call)
                finally:
                    slots.release()
                answer.set_result(found)
            except BaseException as error:  # handed to who waits
                answer.set_exception(error)

        try:
            threading.Thread(target=run, name="ww-neo4j", daemon=True).start()
        except RuntimeError:  # no more threads
            slots.release()
            raise
        try:
            while not wait([answer], timeout=PATIENCE_SECONDS).done:
                self._hear(call, PATIENCE_SECONDS)
                if prompt and not answer.done():
                    raise StoreUnavailable(
                        f"Neo4j at {self.place} had not done it after {PATIENCE_SECONDS:g} s{call.give_up()}",
                        hint="it answers, but is it overloaded? A repeat with the same episode_id is stored once",
                    )
        except KeyboardInterrupt:
            call.give_up()
            raise
        return answer.result()

    def _slot(self, call: Call) -> threading.Semaphore:
        """Wait for one of the ``neo4j_pool_size`` connections to be free, here rather than in the driver, where it
        could not be told from a server that says nothing; to be released."""
        slots, end = self._slots, time.monotonic() + self._settings.neo4j_acquisition_timeout
        if slots.acquire(blocking=False):
            return slots
        self._on_use(1.0)
        while not slots.acquire(timeout=max(0.0, min(PATIENCE_SECONDS, end - time.monotonic()))):
            self._hear(call, CONNECT_SECONDS)
            if time.monotonic() >= end:
                call.give_up()
                raise failures.busy(self.place)
        return slots

    def _hear(self, call: Call, waited: float) -> None:
        """Find out whether the server answers. Raises StoreUnavailable where it does not, the call given up."""
        self._silent = not self._answers()
        if self._silent:
            raise StoreUnavailable(
                f"Neo4j at {self.place} did not answer within {waited:g} s{call.give_up()}",
                hint="is the server stopped, or cut off?",
            )

    def _answers(self) -> bool:
        """Whether a new connection is answered, within CONNECT_SECONDS."""
        with suppress(DriverError, Neo4jError, ConfigurationError), self._open(CONNECT_SECONDS) as driver:
            driver.verify_connectivity()
            return True
        return False

    def close(self) -> None:
        """Close the pool. Using the server again opens it again."""
        with self._lock:
            driver, self._driver = self._driver, None
            self._closed += 1
            # what was left behind keeps its own
            self._slots = threading.Semaphore(self._settings.neo4j_pool_size)
            if driver is not None:
                driver.close()
        self.holders.leave()

    def _run(self, work: Callable[[Transaction], T], access: str, *, again: bool, prompt: bool) -> T:
        repeated, lost = 0, 0
        started = time.monotonic()
        call = Call(self._closed, writes=access == WRITE_ACCESS)
        while True:
            try:
                return self._attended(work, call, prompt=prompt)
            except (DriverError, Neo4jError) as error:
                if failures.repeatable(error) and repeated < self._settings.neo4j_max_transaction_retry:
                    repeated += 1
                elif self._worth_another(error, again) and not lost and time.monotonic() - started < CONNECT_SECONDS:
                    lost += 1
                else:
                    raise failures.translated(error, self.place, self._settings.neo4j_user) from error
                log.debug("transaction is repeated", extra={"action": "neo4j.repeat", "attempt": repeated + lost})
            time.sleep(random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (repeated + lost))))

    @staticmethod
    def _worth_another(error: DriverError | Neo4jError, again: bool) -> bool:
        """A connection of the pool may date from before the server was restarted."""
        return failures.connection_lost(error) and (again or not failures.outcome_unknown(error))

    def _attempt(self, work: Callable[[Transaction], T], call: Call) -> T:
        driver = self._connected(call)
        with self._lock:
            self._in_use += 1
        self._on_use(self.utilisation)
        try:
            with (
                driver.session(
                    database=self._settings.neo4j_database,
                    default_access_mode=WRITE_ACCESS if call.writes else READ_ACCESS,
                    bookmark_manager=self._bookmarks,
                    fetch_size=-1,
                ) as session,
                session.begin_transaction() as transaction,
            ):
                answer = work(transaction)
                call.commit()
                transaction.commit()
                return answer
        finally:
            self._on_use(self.utilisation)
            with self._lock:
                self._in_use -= 1

    def _connected(self, call: Call) -> Driver:
        """The pool of the opening that the call was made on. Raises StoreUnavailable where that was closed, GivenUp."""
        with self._opening:
            call.begin()
            with self._lock:
                if call.opened != self._closed:
                    raise self._closed_meanwhile()
                if self._driver is not None:
                    return self._driver
            driver = self._open(self._settings.neo4j_acquisition_timeout)
            try:
                with driver.session(database=self._settings.neo4j_database) as session:
                    migrate(session, self.place)
            except BaseException:
                driver.close()
                raise
            with self._lock:
                if call.opened == self._closed:
                    # in a cluster, what one transaction wrote is seen by the next even where another member answers it
                    self._bookmarks = GraphDatabase.bookmark_manager() if self._uri.startswith("neo4j") else None
                    self._driver = driver
                    return driver
            driver.close()
            raise self._closed_meanwhile()

    def _closed_meanwhile(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store on Neo4j at {self.place} was closed meanwhile")

    def _open(self, acquisition_timeout: float) -> Driver:
        s = self._settings
        uri, trust = self._uri, {}
        if s.neo4j_ca_certs is not None:
            # the driver's own "+s" always means the system's authorities
            uri, trust = uri.replace("+s://", "://", 1), _trusting(s.neo4j_ca_certs)
        try:
            return GraphDatabase.driver(
                uri,
                **trust,
                auth=self._auth,
                max_connection_pool_size=s.neo4j_pool_size,
                connection_acquisition_timeout=acquisition_timeout,
                connection_timeout=CONNECT_SECONDS,
                liveness_check_timeout=IDLE_SECONDS,
                user_agent=f"world-weaver/{VERSION}",
                notifications_min_severity="OFF",
                telemetry_disabled=True,
            )
        except (ValueError, DriverError) as error:
            raise ConfigurationError(
                f"neo4j_uri {self.place!r} cannot be used: {error}", hint="bolt://HOST:7687"
            ) from error


def _trusting(authorities: Path) -> dict[str, Any]:
    try:
        SSLContext(PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
    except OSError as error:  # SSLError is one
        raise ConfigurationError(
            f"neo4j_ca_certs {authorities} cannot be used: {error.strerror or error}",
            hint="name a readable file of certificates (PEM)",
        ) from error
    return {"encrypted": True, "trusted_certificates": TrustCustomCAs(str(authorities))}


def _credentials(settings: Settings, userinfo: str) -> tuple[str, str] | None:
    """User and password of the settings, else those in the URI, else none at all."""
    if settings.neo4j_password is not None:
        return settings.neo4j_user, settings.neo4j_password.get_secret_value()
    user, colon, password = userinfo.partition(":")
    return (unquote(user), unquote(password)) if colon else None


def _start_anew() -> None:
    for server in list(_servers):
        # another thread of the parent may have held it at the fork
        server._lock, server._opening = threading.RLock(), threading.Lock()
        server._slots = threading.Semaphore(server._settings.neo4j_pool_size)
        server.holders.abandon()
        if server._driver is not None:
            _outlived.append(server._driver)
            server._driver, server._in_use = None, 0


os.register_at_fork(after_in_child=_start_anew)
