"""The memory that this process holds and that its machine has left."""

from __future__ import annotations

import ctypes
import math
from contextlib import suppress
from pathlib import Path


def return_memory() -> None:
    """Give the system back what was taken and freed since, where the C library is glibc: it would keep most of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def available() -> float:
    """Bytes that are to be had without pushing anything out, inf where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    return math.inf


__all__ = ["available", "return_memory"]
