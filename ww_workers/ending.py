"""How a worker ends: its tasks are told at once, hand back what they hold, and it goes when they have.

Celery's soft shutdown sleeps in a signal handler: nobody hears meanwhile that the tasks are done. So SIGTERM is a warm
shutdown here, whatever ``REMAP_SIGTERM`` says, and what is not over in time is ended by force.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from celery import Celery, bootsteps, signals
from celery.worker import state

from ww_workers.settings import SOFT_SHUTDOWN_SECONDS

STOP_VARIABLE = "WW_WORKER_STOP"
"""Names the file that tells children to stop; set by the parent, however they are started."""
FORCE_SECONDS = 5.0
"""What Celery's cold shutdown is given; after that the process ends on the spot, and its children with it."""
DONE, FAILED = 0, 1
"""Exit codes."""

_parent: int | None = None
_forced = False


def install(app: Celery) -> None:
    """Let every worker of this app end so."""
    app.steps["worker"].add(PromptEnd)
    signals.celeryd_after_setup.connect(_set_up, weak=False, dispatch_uid="ww-end-set-up")
    signals.worker_shutdown.connect(_tidy, weak=False, dispatch_uid="ww-end-tidy")


def stopping() -> bool:
    """Whether the worker shuts down, or its parent is gone: finish the step under way and give the rest back."""
    return _told() or (_parent is not None and os.getppid() != _parent)


def enter_child() -> None:
    """Know the parent, whose end is a reason to stop as well."""
    global _parent
    _parent = os.getppid()


class PromptEnd(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
    """Takes SIGTERM over once Celery has set up its own handlers, and tells children of any other end."""

    label = "Prompt end"

    def start(self, worker: Any) -> None:
        """Set the handlers, where the worker has a process to itself."""
        if threading.current_thread() is not threading.main_thread():
            return
        parent = os.getpid()

        def end(*_: object) -> None:
            if os.getpid() != parent:  # a child that was forked just now
                return
            try:
                _tell()
                signals.worker_shutting_down.send(sender=worker.hostname, sig="SIGTERM", how="Warm", exitcode=DONE)
            finally:
                state.should_stop = DONE

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGALRM, _force)

    def close(self, worker: Any) -> None:
        """Whatever ends it (Ctrl-C, SIGHUP, a command over the broker): this comes before tasks are waited for."""
        _tell()


def _set_up(instance: Any, **_: object) -> None:
    os.environ[STOP_VARIABLE] = str(Path(tempfile.mkdtemp(prefix="ww-worker-")) / "stop")
    wait = instance.wait_for_soft_shutdown

    def tell_and_wait() -> None:
        # of a cold shutdown (SIGQUIT, a second Ctrl-C): whoever was told before has had its time
        if not _told() and not _forced:
            _tell()
            wait()

    instance.wait_for_soft_shutdown = tell_and_wait


def _tell() -> None:
    """Tell the children, and see to it that the worker ends though they do not listen."""
    path = os.environ.get(STOP_VARIABLE)
    if path is None or _told():
        return
    if signal.getsignal(signal.SIGALRM) is _force and not any(signal.getitimer(signal.ITIMER_REAL)):
        signal.setitimer(signal.ITIMER_REAL, SOFT_SHUTDOWN_SECONDS)
    with suppress(OSError):  # a full disk: then the timer ends it
        Path(path).parent.mkdir(mode=0o700, exist_ok=True)  # systemd removes what lies unused for days
        Path(path).touch()


def _told() -> bool:
    path = os.environ.get(STOP_VARIABLE)
    return path is not None and os.path.exists(path)


def _force(*_: object) -> None:
    """Celery's cold shutdown, which gives unfinished messages back to the broker; where that hangs too, the end."""
    global _forced
    if _forced:
        try:
            _kill_children()
        finally:
            os._exit(FAILED)
    _forced = True
    # no logging in a signal handler: it may have interrupted a write to the same stream
    os.write(2, f"worker: tasks go on {SOFT_SHUTDOWN_SECONDS} s after they were told to stop; ended\n".encode())
    signal.setitimer(signal.ITIMER_REAL, FORCE_SECONDS)
    os.kill(os.getpid(), signal.SIGQUIT)


def _kill_children() -> None:
    """Linux with glibc does it by itself: Celery's children ask to die with their parent."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()


def _tidy(**_: object) -> None:
    if signal.getsignal(signal.SIGALRM) is _force:
        signal.setitimer(signal.ITIMER_REAL, 0)  # it would outlive the restart that SIGHUP asks for
    path = os.environ.pop(STOP_VARIABLE, None)  # nobody is told from here on
    if path is not None:
        shutil.rmtree(Path(path).parent, ignore_errors=True)
