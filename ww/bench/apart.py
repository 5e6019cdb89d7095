"""Work in a process of its own, so that the memory and the caches it takes are its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def alone(work: Callable[..., T], *args: Any) -> T:
    """The answer of a module's function, called in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *args).result()


def most_resident() -> float:
    """GiB that this process had in memory at its most, the mapped pages of its files included."""
    status = Path("/proc/self/status")  # a child's rusage starts at its parent's: Linux knows its own
    if status.exists():
        (kib,) = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return kib / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)
