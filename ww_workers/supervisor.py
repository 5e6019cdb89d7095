"""Child processes of one system: started, watched, started again when they die, and ended together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
HEALTHY_SECONDS = 60.0
"""A child that lived this long starts again at once when it dies."""
STOP_SECONDS = 40.0
"""Longer than the 25 s within which a worker ends, whatever its tasks do."""


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. ``stops_last``: others need it to end well (a broker)."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    stops_last: bool = False


class _Child:
    def __init__(self, program: Program, say: Callable[[str, str], None], held: Sequence[int]) -> None:
        self.program = program
        self._held = held
        self.process: subprocess.Popen[str] | None = None
        self.deaths = 0
        self.started = 0.0
        self.due = 0.0
        self._say = say

    def start(self) -> None:
        self.started = time.monotonic()
        # its own session: Ctrl-C in the terminal reaches the supervisor alone, which ends its children in order
        self.process = subprocess.Popen(
            self.program.command,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.program.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            pass_fds=self._held,
        )
        threading.Thread(target=self._read, args=(self.process,), name=f"log-{self.program.name}", daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        for line in process.stdout:
            self._say(self.program.name, line.rstrip("\n"))

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def watch(self, now: float) -> None:
        """Start it again when it is due."""
        if self.alive:
            return
        if self.process is not None:
            code, self.process = self.process.returncode, None
            self.deaths = 1 if now - self.started > HEALTHY_SECONDS else self.deaths + 1
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (self.deaths - 1))
            self.due = now + pause
            self._say(self.program.name, f"ended with {_how(code)}; starts again in {pause:.0f} s")
        elif now >= self.due:
            self.start()

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number) if number is signal.SIGKILL else self.process.send_signal(number)


class Supervisor:
    """Runs programs until it is told to stop. ``say(name, line)`` gets every line that one of them prints.

    They inherit the descriptors ``held``: a lock on one of these is held while any of them lives.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        say: Callable[[str, str], None] | None = None,
        *,
        held: Sequence[int] = (),
    ) -> None:
        self._children = [_Child(program, say or _print, held) for program in programs]
        self._stopping = False

    def start(self, names: Sequence[str] = ()) -> None:
        """Start the programs of these names, or all that do not run."""
        for child in self._children:
            if not child.alive and (not names or child.program.name in names):
                child.start()

    def request_stop(self) -> None:
        """Make ``watch`` return; safe in a signal handler: no lock, which what it interrupts might hold."""
        self._stopping = True

    def watch(self) -> None:
        """Keep the programs running until ``request_stop``."""
        while not self._stopping:
            now = time.monotonic()
            for child in self._children:
                child.watch(now)
            threading.Event().wait(LOOK_SECONDS)

    def stop(self, *, within: float = STOP_SECONDS) -> None:
        """End everything: politely, then by force after ``within`` seconds; what the others need last."""
        self._stopping = True
        for last in (False, True):
            children = [child for child in self._children if child.program.stops_last is last]
            for child in children:
                child.signal(signal.SIGTERM)
            end = time.monotonic() + within
            while any(child.alive for child in children) and time.monotonic() < end:
                threading.Event().wait(LOOK_SECONDS)
            for child in children:
                if child.alive:
                    log.warning("%s had to be killed", child.program.name, extra={"action": "supervisor.kill"})
                child.signal(signal.SIGKILL)

    def running(self) -> dict[str, int]:
        """Process id by name of what runs now."""
        return {c.program.name: c.process.pid for c in self._children if c.process is not None and c.alive}


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"


def _print(name: str, line: str) -> None:
    sys.stderr.write(f"{name:<12} {line}\n")
    sys.stderr.flush()
