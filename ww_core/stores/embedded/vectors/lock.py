"""Who owns the vectors of a data directory: one process, by a lock that dies with it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from ww_core.stores.holders import boot_id

LOCK_FILE = "owner.lock"


@dataclass(frozen=True, slots=True)
class Identity:
    """A process and its machine. ``boot`` names the running kernel where the system tells it, else it is empty."""

    host: str
    boot: str
    pid: int

    @classmethod
    def mine(cls) -> Identity:
        return cls(socket.gethostname(), boot_id(), os.getpid())

    def same_machine(self, other: Identity) -> bool:
        """Whether both can reach each other's sockets: containers on one kernel can, whatever they call themselves."""
        return self.boot == other.boot if self.boot and other.boot else self.host == other.host


class OwnerLock:
    """The flock on ``directory/owner.lock``, which names its holder while it is held."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._fd: int | None = None

    def acquire(self) -> bool:
        """Take the lock if nobody holds it. Raises OSError where the file cannot be written."""
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(asdict(Identity.mine())).encode(), 0)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def holder(self) -> Identity | None:
        """Who wrote the lock file last, None where it says nothing legible."""
        try:
            return Identity(**json.loads(self._path.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def release(self) -> None:
        """Let the next process own."""
        if self._fd is not None:
            with contextlib.suppress(OSError):  # the name is a courtesy, the lock is what counts
                os.ftruncate(self._fd, 0)
            self.forget()

    def forget(self) -> None:
        """Close this process's handle and nothing else: after a fork the lock still belongs to the parent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
