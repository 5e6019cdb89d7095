"""The command ``ww``."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import NoReturn


def main() -> None:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGINT, _leave)  # nothing is open yet; as soon as something may be, ww.cli.signals unwinds
    ending = _Ending()
    atexit.register(ending)  # the first to be registered is the last to run
    sys.path.append("")  # hooks are found in the current directory, as they are by every worker
    from ww.cli.run import run

    ending.code = run(sys.argv[1:])
    sys.exit(ending.code)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    told = b'{"error": {"type": "Interrupted", "message": "interrupted", "hint": ""}}\n'
    as_json = "--json" in sys.argv
    os.write(1 if as_json else 2, told if as_json else b"ww: interrupted\n")
    os._exit(130)


class _Ending:
    """Ends the process where background work did not stop in time.

    A thread that is inside an engine written in C++ or Rust while the interpreter takes itself apart aborts the
    process, and the exit code would say that what was done has failed.
    """

    code: int | None = None

    def __call__(self) -> None:
        if self.code is None or threading.active_count() < 2:
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.code)
