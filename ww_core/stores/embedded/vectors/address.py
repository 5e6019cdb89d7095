"""Unix sockets inside a directory whose path may be longer than a socket address holds, for one user only."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ww_core.errors import ConfigurationError

SOCKET_FILE = "owner.sock"
_MAX_PATH = 100
"""Bytes; systems take 104 or 108, with the terminating zero."""


@contextmanager
def reachable(directory: Path) -> Iterator[str]:
    """A path of the socket in the directory that is short enough to bind or connect to, valid inside the block."""
    direct = os.fspath(directory / SOCKET_FILE)
    if len(os.fsencode(direct)) <= _MAX_PATH:
        yield direct
        return
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        through = f"/proc/self/fd/{fd}"
        yield f"{through}/{SOCKET_FILE}" if os.path.isdir(through) else os.fspath(_link(directory) / SOCKET_FILE)
    finally:
        os.close(fd)


def _link(directory: Path) -> Path:
    """A short symbolic link to the directory, in a place under the system's temporary directory that is ours alone."""
    private = Path(tempfile.gettempdir()) / f"world-weaver-{os.geteuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    status = private.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConfigurationError(f"{private} is not a directory of this user alone", hint="remove it")
    target = os.path.realpath(directory)
    link = private / hashlib.sha256(os.fsencode(target)).hexdigest()[:16]
    if not link.is_symlink():
        draft = link.with_suffix(f".{os.getpid()}")
        draft.symlink_to(target)
        draft.replace(link)
    return link


def listen(directory: Path) -> socket.socket:
    """A listening socket in the directory, in place of one that a dead owner left. Only for who holds the lock."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        (directory / SOCKET_FILE).unlink(missing_ok=True)
        with reachable(directory) as path:
            server.bind(path)
        (directory / SOCKET_FILE).chmod(0o600)
        server.listen(128)
    except BaseException:
        server.close()
        raise
    return server


def connect(directory: Path, *, timeout: float) -> socket.socket:
    """A connection to the owner. Raises OSError where nobody listens; every later operation is bounded by ``timeout``
    seconds."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        with reachable(directory) as path:
            connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int | None:
    """The user on the other side; None where the system does not tell (then the directory's mode is the guard)."""
    if sys.platform == "linux":
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[1])
    local_peercred = getattr(socket, "LOCAL_PEERCRED", None)
    if local_peercred is None:
        return None
    raw = connection.getsockopt(0, local_peercred, 76)  # struct xucred: version, uid, groups
    return int(struct.unpack_from("=iI", raw)[1])
