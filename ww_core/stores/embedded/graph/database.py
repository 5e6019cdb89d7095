"""One SQLite file as several processes and threads use it: connections, transactions, errors, fork and wiping."""

from __future__ import annotations

import math
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ww_core.errors import NO_SPACE, StoreUnavailable, WorldWeaverError
from ww_core.stores.embedded.graph.migrations import migrate
from ww_core.stores.holders import Holders

LOCK_TIMEOUT = 30.0
"""Seconds a call waits for another process's transaction; ours last milliseconds."""
WIPE_SECONDS = 0.05
"""Longest wait for readers at a time while the log is emptied: nobody can write meanwhile."""
WIPE_ATTEMPTS = 10
"""How often the log is tried to be emptied before that is left to the next sweep."""
IDLE_CONNECTIONS = 8
CACHE_KIB = 16 * 1024
"""Page cache of one connection."""
WAL_PAGES = 4000
"""Pages (of 4 KiB) after which a commit copies the write-ahead log into the file."""
SYNC = "FULL"
"""fsync with every commit: what was acknowledged survives a power cut."""

LEAST_FREE = 1_000_000
"""Free bytes from which the file is opened, or something is written: the index of the log takes 32 KiB at a time."""
_FREE_SOME = "free some disk space; nothing stored before is lost"

FORK_PATIENCE = 5.0
"""Seconds a fork waits for the transactions of other threads."""

_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_forking = threading.Lock()
_at_fork: list[Database] = []
"""Those held still by the fork that is going on."""
_inherited: list[sqlite3.Connection] = []
"""Connections a child got from a transaction that outlasted the patience: using or closing them could break locks."""


class Database:
    """A pool of connections to ``path``. ``read`` and ``write`` give a connection inside a transaction."""

    def __init__(self, path: Path, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self.path = path
        self.holders = Holders(path.with_name(f"{path.name}-holders"))
        self._lock_timeout = lock_timeout
        self._reset()
        _databases.add(self)

    def _reset(self) -> None:
        self._idle: list[sqlite3.Connection] = []
        self._all: set[sqlite3.Connection] = set()
        self._guard = threading.Condition()
        # threads of one process queue here instead of polling SQLite's lock
        self._writing = threading.Lock()
        self._closed = False
        self._still = False

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection on one unchanging snapshot."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _end(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection that alone may write; durable when the block ends, as if never begun where it raises."""
        if not self._writing.acquire(timeout=self._lock_timeout):
            raise self._locked()
        try:
            self._need_room()
            with self._connection() as connection:
                self._begin(connection)
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    _end(connection)
        finally:
            self._writing.release()

    @contextmanager
    def statement(self) -> Iterator[sqlite3.Connection]:
        """A connection for one statement, which is a transaction of its own: nobody who wants to write waits for what
        Python does before it and after it."""
        if not self._writing.acquire(timeout=self._lock_timeout):
            raise self._locked()
        try:
            self._need_room()
            with self._connection() as connection:
                yield connection
        finally:
            self._writing.release()

    def wipe(self) -> bool:
        """Empty the write-ahead log, which still holds what was erased; False where a reader is in the way.

        Nobody can write while this waits for readers: it waits a little, lets writers pass, and tries again.
        """
        for attempt in range(WIPE_ATTEMPTS):
            if attempt:
                time.sleep(random.uniform(0.5, 1.0) * WIPE_SECONDS)
            with self._writing, self._connection() as connection:
                connection.execute(f"PRAGMA busy_timeout = {int(WIPE_SECONDS * 1000)}")
                try:
                    busy: int = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                finally:
                    connection.execute(f"PRAGMA busy_timeout = {int(self._lock_timeout * 1000)}")
            if not busy:
                return True
        return False

    def close(self) -> None:
        """Close every connection that is idle; the others close when their call ends."""
        with self._guard:
            idle, self._idle, self._closed = self._idle, [], True
            self._all.difference_update(idle)
        for connection in idle:
            connection.close()
        self.holders.leave()

    def __del__(self) -> None:
        # nobody closed it, or a thread that was late has opened it again since: what a parent opened is not among these
        for connection in self.__dict__.get("_idle", ()):
            connection.close()

    def _need_room(self) -> None:
        """Raises StoreUnavailable on a full disk. SQLite maps the index of its log to memory: without a block for a
        page of it the kernel ends the process (SIGBUS)."""
        there = _free(self.path.parent)
        if there < LEAST_FREE:
            raise StoreUnavailable(
                f"{NO_SPACE} for {self.path}: {there / 1e6:.1f} MB are free, {LEAST_FREE / 1e6:g} MB are needed",
                hint=_FREE_SOME,
            )

    # -- connections

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection = self._take()
            broken = True
            try:
                yield connection
                broken = False
            except WorldWeaverError:
                broken = False
                raise
            finally:
                self._give_back(connection, broken=broken)
        except sqlite3.Error as error:
            raise unavailable(error, self.path) from error

    def _take(self) -> sqlite3.Connection:
        with self._guard:
            while self._still:
                self._guard.wait()
            if self._idle:
                return self._idle.pop()
            # a closed store that is used again simply opens again
            self._closed = False
            connection = self._open()
            self._all.add(connection)
            return connection

    def _give_back(self, connection: sqlite3.Connection, *, broken: bool) -> None:
        with self._guard:
            if not broken and not self._closed and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
            else:
                self._all.discard(connection)
                connection.close()
            self._guard.notify_all()

    def _open(self) -> sqlite3.Connection:
        created = not self.path.exists()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot create {self.path.parent}: {error.strerror}", hint="choose a data_dir you may write to"
            ) from error
        if not self._all:  # the first makes the index, the others find it
            self._need_room()
        connection = sqlite3.connect(
            self.path, timeout=self._lock_timeout, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            # the first of several processes changes the file's mode, and SQLite lets the others not wait for that
            self._patiently(connection, "PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {SYNC}")
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_PAGES * 4096 * 4}")
            migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        if created:
            _sync_directory(self.path.parent)
        return connection

    # -- transactions

    def _begin(self, connection: sqlite3.Connection) -> None:
        self._patiently(connection, "BEGIN IMMEDIATE")

    def _patiently(self, connection: sqlite3.Connection, statement: str) -> None:
        """Execute once nobody holds the lock, looking often: SQLite's own handler may sleep for 100 ms."""
        deadline = time.monotonic() + self._lock_timeout
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            while True:
                try:
                    connection.execute(statement)
                    return
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        raise
                    if time.monotonic() > deadline:
                        raise self._locked() from error
                time.sleep(random.uniform(0.0002, 0.002))
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._lock_timeout * 1000)}")

    def _locked(self) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.path} was locked for {self._lock_timeout:g} s",
            hint="another process holds a transaction open; is one of them stopped?",
        )

    # -- fork: SQLite keeps its view of the file's locks in memory. A child that inherited an open connection would
    # believe in locks that nobody holds, and hold none where it believes to: none is open at the moment of a fork.

    def _hold_still(self) -> None:
        self._guard.acquire()
        self._still = True
        self._guard.wait_for(lambda: len(self._idle) == len(self._all), timeout=FORK_PATIENCE)
        for connection in self._idle:
            connection.close()
        self._all.difference_update(self._idle)
        self._idle.clear()

    def _go_on(self) -> None:
        self._still = False
        self._guard.notify_all()
        self._guard.release()

    def _start_anew(self) -> None:
        _inherited.extend(self._all)
        self.holders.abandon()
        self._reset()


def unavailable(error: sqlite3.Error, path: Path) -> StoreUnavailable:
    """What SQLite's error means for the user of ``path``."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            what, hint = f"{path} cannot be written", "give yourself write access, or choose another data_dir"
        case sqlite3.SQLITE_FULL:
            what, hint = f"{NO_SPACE} for {path}", _FREE_SOME
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            what = f"{path} is damaged"
            hint = "restore it from a copy, or rescue what is left with: sqlite3 FILE .recover"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            what, hint = f"{path} is locked", "another process holds a transaction open; is one of them stopped?"
        case sqlite3.SQLITE_IOERR:
            what, hint = f"reading or writing {path} failed", "the disk is full or failing, or a quota is reached"
        case _:
            what, hint = f"{path} cannot be used", "see the message; -v shows where"
    return StoreUnavailable(f"{what}: {error}", hint=hint)


def _free(directory: Path) -> float:
    """Bytes that this user may still write there; infinite where the system does not say."""
    try:
        disk = os.statvfs(directory)
    except OSError:  # not there yet: whoever makes it finds out
        return math.inf
    return disk.f_bavail * disk.f_frsize


def _end(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        # after a full disk SQLite may have rolled back by itself between the two lines
        with suppress(sqlite3.OperationalError):
            connection.execute("ROLLBACK")


def _sync_directory(directory: Path) -> None:
    """Make the new file's name itself durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _before_fork() -> None:
    _forking.acquire()
    _at_fork.extend(_databases)
    for database in _at_fork:
        database._hold_still()


def _after_fork_in_parent() -> None:
    while _at_fork:
        _at_fork.pop()._go_on()
    _forking.release()


def _after_fork_in_child() -> None:
    while _at_fork:
        _at_fork.pop()._start_anew()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
