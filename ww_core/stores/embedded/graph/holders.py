"""Which processes hold leases in one graph file: each has a lock that the system takes from it when it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

SUFFIX = ".lock"
UNNAMED_SUFFIX = ".new"
UNNAMED_SECONDS = 60.0
"""A file that has no name yet for longer belongs to nobody any more: taking a lock is done in an instant."""


class Holders:
    """The directory of lock files beside the graph file ``path``, one for each process that ever leased something.

    A lock that can be had means that its process is gone, however it ended and whatever its lease says. A stopped
    process keeps it. Where the file system knows no locks nobody is ever found dead, and leases simply run out.
    """

    def __init__(self, path: Path) -> None:
        self._directory = path.with_name(f"{path.name}-holders")
        self._fd: int | None = None
        self._name = ""

    def mine(self) -> str:
        """This process's name for its leases, its lock taken; empty where that cannot be had."""
        if self._fd is None:
            with contextlib.suppress(OSError):  # a full disk, or no locks here
                self._take()
        return self._name

    def _take(self) -> None:
        self._directory.mkdir(mode=0o700, exist_ok=True)
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

    def tidy(self) -> None:
        """Remove what dead processes left behind."""
        with contextlib.suppress(OSError):
            for file in self._directory.glob(f"*{SUFFIX}"):
                if self.dead([file.stem]):
                    file.unlink(missing_ok=True)
            for file in self._directory.glob(f"*{UNNAMED_SUFFIX}"):
                if time.time() - file.stat().st_mtime > UNNAMED_SECONDS:
                    file.unlink(missing_ok=True)

    def leave(self) -> None:
        """Give the lock up: what this process still has leased is free for others."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self._file(self._name).unlink(missing_ok=True)
            self.abandon()

    def abandon(self) -> None:
        """In a child after a fork: the lock belongs to the parent, and must end with it."""
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._name = None, ""

    def _file(self, name: str) -> Path:
        return self._directory / f"{name}{SUFFIX}"

    def _gone(self, name: str) -> bool:
        try:
            fd = os.open(self._file(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # it left, or somebody tidied up after it
            return True
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True
