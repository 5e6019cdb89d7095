"""Reading ahead what searches read: the engine drops its files from the system's cache whenever it closes them.

A search waits for each page that it is the first to read: 8 of a recall's 24 ms at 100 000 episodes, 23 of its 55 ms at
a million. Read from end to end, 200 MB take a fifth of a second. The system may take them back whenever it needs room.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from ww_core.ram import available
from ww_core.stores.ports import CONTENT

PIECE = 1 << 20
"""Bytes read at a time; closing waits for one piece at most."""
SHARE = 0.5
"""Of the memory that is to be had, which reading ahead may fill: what is beyond would push out what came first."""
_SEARCHED = (f"segments/*/vector_storage-{CONTENT}/vectors/chunk_*", "segments/*/payload_storage/*")
"""The whole vectors that searches score anew, and what says which episodes were found."""


class Warming:
    """One pass over the files of the shard in ``directory``, in a thread of its own, until ``stop``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ww-vectors-warm", daemon=True)
        with suppress(RuntimeError):  # there can be no thread more: searches wait for the disk, as they may
            self._thread.start()

    def stop(self) -> None:
        """End it, wherever it is."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within the time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        room = SHARE * available()
        piece = bytearray(PIECE)
        for pattern in _SEARCHED:
            for path in sorted(self._directory.glob(pattern)):
                with suppress(OSError):  # a scrub has removed it
                    room -= path.stat().st_size
                    if room < 0 or not self._read(path, piece):
                        return

    def _read(self, path: Path, piece: bytearray) -> bool:
        """False where it was stopped."""
        # by its number: a fork's child closes it so, and no object may do that once more
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while not self._stopped.is_set():
                if not os.readv(file, [piece]):
                    return True
        finally:
            os.close(file)
        return False
