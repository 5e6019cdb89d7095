"""Which processes hold leases in one graph store: each has a lock that the system takes from it when it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

SUFFIX = ".lock"
UNNAMED_SUFFIX = ".new"
UNNAMED_SECONDS = 60.0
"""A file that has no name yet for longer belongs to nobody any more: taking a lock is done in an instant."""


def boot_id() -> str:
    """Names the running kernel, empty where the system does not tell."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


class Holders:
    """A directory of lock files, one for each process that ever leased something in the graph store that it is for.

    A lock that can be had means that its process is gone, however it ended and whatever its lease says. A stopped
    process keeps it. Where the file system knows no locks nobody is ever found dead, and leases simply run out.
    """

    _absent_is_gone = True
    """A name without a file: it left, or somebody tidied up after it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._name = ""

    def mine(self) -> str:
        """This process's name for its leases, its lock taken; empty where that cannot be had."""
        with self._lock:
            if self._fd is None:
                with contextlib.suppress(OSError):  # a full disk, or no locks here
                    self._take()
            return self._name

    def _take(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = uuid4().hex
        # locked before it has its name: nobody may find it free in between
        unnamed = self._directory / f"{name}{UNNAMED_SUFFIX}"
        fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            unnamed.rename(self._file(name))
        except OSError:
            os.close(fd)
            unnamed.unlink(missing_ok=True)
            raise
        self._fd, self._name = fd, name

    def dead(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose process is gone for certain."""
        return [name for name in names if name and name != self._name and self._gone(name)]

    def left(self) -> list[Path]:
        """Files of dead processes, to be removed with ``tidy`` once what these held is free."""
        with contextlib.suppress(OSError):
            return [
                file for file in self._directory.glob(f"*{SUFFIX}") if file.stem != self._name and self._gone(file.stem)
            ] + [
                file
                for file in self._directory.glob(f"*{UNNAMED_SUFFIX}")
                if time.time() - file.stat().st_mtime > UNNAMED_SECONDS
            ]
        return []

    def tidy(self, left: Iterable[Path]) -> None:
        """Remove what dead processes left behind."""
        with contextlib.suppress(OSError):
            for file in left:
                file.unlink(missing_ok=True)

    def leave(self) -> None:
        """Give the lock up: what this process still has leased is free for others."""
        with self._lock:
            if self._fd is not None:
                with contextlib.suppress(OSError):
                    self._file(self._name).unlink(missing_ok=True)
                self._drop()

    def abandon(self) -> None:
        """In a child after a fork: the lock belongs to the parent, and must end with it."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._drop()

    def _drop(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._name = None, ""

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}{SUFFIX}"

    def _gone(self, name: str) -> bool:
        try:
            fd = os.open(self._file(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._absent_is_gone
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True


class HoldersElsewhere(Holders):
    """The same for a graph store on a server, whose other users may be on other machines.

    Names begin with the machine and the directory, and no process judges others: of these a lock says nothing.
    """

    _absent_is_gone = False

    def mine(self) -> str:
        """This process's name for its leases, its lock taken; empty where that cannot be had."""
        name = super().mine()
        mark = self._mark() if name else ""
        return mark and f"{mark}{name}"

    def dead(self, names: Iterable[str]) -> list[str]:
        """Those of the names whose process was here and is gone for certain."""
        mark = self._mark()
        ours = [name.removeprefix(mark) for name in names if mark and name.startswith(mark)]
        return [f"{mark}{name}" for name in super().dead(ours)]

    def leave(self) -> None:
        """Give the lock up. What is still leased waits for its time; the directory goes with the last one."""
        held = self._fd is not None
        super().leave()
        if held:
            with contextlib.suppress(OSError):
                self._directory.rmdir()

    def _mark(self) -> str:
        boot = boot_id()
        try:
            here = self._directory.stat()
        except OSError:
            return ""
        return boot and f"{boot}/{here.st_dev:x}-{here.st_ino:x}/"
