"""What must not cross a fork: locks, sockets and the engine of the parent process.

A child shares its parent's open files. If it kept the owner's lock, the owner's death would go unnoticed; if it kept
the sockets, clients would wait for an answer from nobody; if it dropped the parent's shard, the engine would close
files that the parent writes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from pathlib import Path
from typing import Protocol

from ww_core.forks import immortal


class Forkable(Protocol):
    def abandon(self) -> None:
        """In a child: let go of what belongs to the parent, without a word to anybody."""


guard = threading.RLock()
"""Held while a lock or a socket comes into being, so that no fork falls between its making and its registration."""

_forkables: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(forkable: Forkable) -> None:
    """Have ``abandon`` called in every child that is forked from now on."""
    with guard:
        _forkables.add(forkable)


def close_files_below(directory: Path) -> None:
    """Close this process's handles of ``directory`` and of what is below, whoever opened them.

    For a child, or a shard that is left: the engine locks its log as well, and a lock lives until the last copy of its
    handle is closed.
    """
    below = (os.path.join(folder, name) for folder, _, names in os.walk(directory) for name in (".", *names))
    inside = {(status.st_dev, status.st_ino) for path in below if (status := _status(path))}
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own handle is gone by now
            status = os.fstat(int(name))
            if (status.st_dev, status.st_ino) in inside:
                os.close(int(name))


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _in_child() -> None:
    global guard
    guard = threading.RLock()
    for forkable in list(_forkables):
        forkable.abandon()


os.register_at_fork(
    before=lambda: guard.acquire() and None,
    after_in_parent=lambda: guard.release(),
    after_in_child=_in_child,
)

__all__ = ["Forkable", "guard", "immortal", "register"]
