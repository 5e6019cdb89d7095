"""Room on the disk, looked at before the engine needs it.

The engine maps files with holes into memory. Where the disk has no block left for a hole, the kernel ends the process
(SIGBUS) instead of answering, so a full disk has to be noticed before.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ww_core.errors import NO_SPACE, StoreUnavailable

MEGABYTE = 1_000_000
TO_WRITE = 64 * MEGABYTE
"""Free bytes from which points are written: a step of 512 episodes takes about 5 MB, and other processes write too."""
TO_DELETE = 8 * MEGABYTE
"""Free bytes from which points are deleted: that takes little, and makes room in the end."""
_READ_WHOLE = frozenset({"quantized_data", "payload_index"})
"""Folders whose files the engine reads from end to end as it opens a shard."""
_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def free(directory: Path) -> int:
    """Bytes that this user may still write there."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def need(directory: Path, least: int, doing: str) -> None:
    """Raises StoreUnavailable where fewer than ``least`` bytes are free."""
    there = free(directory)
    if there < least:
        raise StoreUnavailable(
            f"{NO_SPACE} on the disk of the vector store while {doing}: {there / MEGABYTE:.1f} MB are free in "
            f"{directory}, {least / MEGABYTE:.0f} MB are needed",
            hint="free some space",
        )


def need_to_open(directory: Path) -> None:
    """Raises StoreUnavailable where opening the shard in ``directory`` would not fit.

    On a disk it takes nothing: a hole that is only read has no block. In a file system in memory it has, and opening
    reads the compressed vectors and the payload indexes from end to end: 124 MB for a new shard, nothing the next time.
    """
    if file_system(directory) in _IN_MEMORY:
        need(directory, TO_DELETE + _holes(directory, _READ_WHOLE), "opening it")


def size(directory: Path) -> int:
    """Bytes that the files below take on the disk."""
    return sum(found.st_blocks * 512 for found in _files(directory))


def file_system(directory: Path) -> str:
    """The kind of file system, empty where the machine does not say."""
    device = directory.stat().st_dev
    place = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        if before.split()[2] == place:
            return after.split()[0]
    return ""


def _holes(directory: Path, folders: Collection[str]) -> int:
    """Bytes without a block in the files below such a folder."""
    return sum(max(0, found.st_size - found.st_blocks * 512) for found in _files(directory, folders))


def _files(directory: Path, folders: Collection[str] = ()) -> list[os.stat_result]:
    """Of everything below, or of what is below a folder of one of these names."""
    found = []
    for folder, _, names in os.walk(directory):
        if folders and not any(part in folders for part in Path(folder).relative_to(directory).parts):
            continue
        for name in names:
            try:
                found.append(os.stat(os.path.join(folder, name)))
            except FileNotFoundError:
                continue
    return found
