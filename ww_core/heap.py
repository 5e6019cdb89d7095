"""The C library's heap."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def return_memory() -> None:
    """Give the system back what was taken and freed since, where the C library is glibc: it would keep most of it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


__all__ = ["return_memory"]
