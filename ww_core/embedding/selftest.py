"""The comparison of a model's paths in a process of its own: bulk work goes on meanwhile, and never loads torch for it.

python -m ww_core.embedding.selftest MODEL THREADS
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable

from ww_core.errors import WorldWeaverError

logger = logging.getLogger(__name__)

LONGEST = 120.0  # seconds a comparison may take: importing torch on a crowded machine is most of it
_NICENESS = 10  # the work that goes on meanwhile comes first


def start(model: str, threads: int | None, done: Callable[[], None]) -> None:
    """Compare the paths of ``model`` (a setting's value) on the CPU; ``done`` is called, on a thread, at the end.

    What is found is kept for every process of this machine, also where this one ends first.
    """

    def wait() -> None:
        command = [sys.executable, "-m", __name__, model, str(threads or 0)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
        quiet = subprocess.DEVNULL
        try:
            subprocess.run(
                command, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, timeout=LONGEST + 5, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            logger.info("Encoder paths not compared: %s", error, extra={"action": "embedding.selftest"})
        done()

    threading.Thread(target=wait, name="ww-selftest", daemon=True).start()


def main(model: str, threads: int) -> int:
    """Compare and remember. The exit code is 1 where the model cannot be run."""
    from ww_core.embedding.runner import ModelOptions, Runner
    from ww_core.embedding.source import locate

    watchdog = threading.Timer(LONGEST, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    try:
        Runner(locate(model), ModelOptions(device="cpu", threads=threads or None)).settle()
    except WorldWeaverError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))

__all__ = ["LONGEST", "start"]
