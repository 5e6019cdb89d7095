"""Open the memory that the command line means, and wait for its background work where there is no worker."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from ww.cli.options import Globals, globals_of
from ww.cli.output import note
from ww.cli.progress import bar
from ww_core.config import Settings
from ww_core.errors import NO_SPACE, FlushTimeout

if TYPE_CHECKING:
    from ww.memory.episodic import EpisodicMemory
    from ww_core.memory import MemoryCore
    from ww_core.models import Run

STEP_SECONDS = 0.5
"""How often the progress of a wait is shown."""
STALL_SECONDS = 120.0
"""A backlog that has not moved for this long is reported instead of waited for."""
FULL_SECONDS = 10.0
"""The same where the disk is full: waiting makes no room."""
OUTAGE_SECONDS = 1.0
"""A backlog that has not moved for this long, and it is known why, is told of, once."""
HELD_SECONDS = 5.0
"""A backlog that has not moved for this long because others hold it is told of, once."""
BEFORE_READING_SECONDS = 30.0
"""How long a recall waits for what earlier commands left pending."""


def settings_of(options: Globals) -> Settings:
    """The settings in force for this invocation; logging follows them."""
    overrides = {} if options.data_dir is None else {"data_dir": options.data_dir}
    settings = Settings.load(config=options.config, origin="command line", **overrides)
    from ww_core.observability.logs import configure

    level = {0: logging.ERROR, 1: logging.INFO}.get(options.verbose, logging.DEBUG)
    configure(log_format=settings.log_format, level=level, stream=sys.stderr)
    return settings


class _Resting:
    """Nobody works in the background: for commands that only read, and so must not start a model."""

    outage = ""

    def start(self) -> None:
        return None

    def consolidate(self, session_id: str, *, dry_run: bool = False, wait: float | None = None) -> Run:
        raise RuntimeError(f"a command that only reads was asked to consolidate {session_id!r}")

    def close(self) -> None:
        return None


@contextmanager
def reading(ctx: typer.Context) -> Iterator[MemoryCore]:
    """The memory without background work, so that a command which only reads starts and ends at once."""
    from ww_core.deployment import Deployment
    from ww_core.memory import MemoryCore

    deployment = Deployment.of(settings_of(globals_of(ctx)))
    try:
        yield MemoryCore(deployment, _Resting())
    finally:
        deployment.close()


@contextmanager
def opened(ctx: typer.Context) -> Iterator[EpisodicMemory]:
    """The memory with its background work, closed at the end: what is in flight is finished or given back."""
    from ww.memory.episodic import EpisodicMemory

    memory = EpisodicMemory(settings=settings_of(globals_of(ctx)))
    try:
        yield memory
    finally:
        memory.close()


def embedded(settings: Settings) -> bool:
    """Whether this process has to do the background work: no broker means no worker."""
    return settings.redis_url is None


def drain(memory: EpisodicMemory, *, timeout: float | None = None, stall: float = STALL_SECONDS) -> bool:
    """Embed everything that is pending, with a bar on a terminal; what is in the way is told on stderr.

    True when nothing is left, False after ``timeout`` seconds. Raises ModelUnavailable at once where the model cannot
    be loaded, and FlushTimeout where nothing moved for ``stall`` seconds, or for FULL_SECONDS where the disk is full.
    """
    deployment = memory.core.deployment
    counts = deployment.graph.counts()
    if not counts.pending + counts.leased:
        return True
    deployment.embedding.warm()
    backlog = _Backlog(memory, stall)
    waited = 0.0
    with bar("embedding", backlog.total) as advance_to:
        while timeout is None or waited < timeout:
            try:
                memory.sync.flush(timeout=STEP_SECONDS)
            except FlushTimeout:
                waited += STEP_SECONDS
                backlog.look()
                advance_to(backlog.total - backlog.left, backlog.total)
            else:
                advance_to(backlog.total, backlog.total)
                return True
    return False


class _Backlog:
    """What is left while somebody waits, looked at every STEP_SECONDS, and what is said where it stands still."""

    def __init__(self, memory: EpisodicMemory, stall: float) -> None:
        self._core = memory.core
        self._stall = stall
        self._still = 0.0
        """Seconds since it moved."""
        self._told: set[str] = set()
        counts = self._core.deployment.graph.counts()
        self.left = self.total = counts.pending + counts.leased

    def look(self) -> None:
        """Another STEP_SECONDS have passed. Raises FlushTimeout where it stood still for too long."""
        counts = self._core.deployment.graph.counts()
        left = counts.pending + counts.leased
        self._still = 0.0 if left < self.left else self._still + STEP_SECONDS
        self.left, self.total = left, max(self.total, left)
        outage = self._core.background.outage
        if outage and self._still >= OUTAGE_SECONDS:
            self._tell("outage", f"nothing can be embedded now: {outage}")
        if counts.leased and self._still >= HELD_SECONDS:
            self._tell(
                "held",
                f"{counts.leased} episodes are leased and none was embedded for {self._still:.0f} s; if another "
                "process holds them and is stopped or gone, they are free "
                f"{self._core.deployment.settings.embedding_lease:g} s after it took them (embedding_lease)",
            )
        stall = min(self._stall, FULL_SECONDS) if NO_SPACE in outage else self._stall
        if self._still >= stall:
            raise FlushTimeout(
                f"{left} episodes are still pending and none was embedded for {stall:.0f} seconds",
                hint=f"they are kept; {outage or '`ww -v flush` shows what is in the way'}",
            ) from None

    def _tell(self, what: str, line: str) -> None:
        if what not in self._told:
            self._told.add(what)
            note(line)


def catch_up(memory: EpisodicMemory) -> None:
    """Before reading: embed what earlier commands left pending, for a bounded time."""
    if not embedded(memory.settings):
        return
    try:
        through = drain(memory, timeout=BEFORE_READING_SECONDS)
    except FlushTimeout:  # what is in the way was told; reading goes on
        through = False
    if not through:
        note("some episodes are still pending and cannot be found by meaning yet; `ww flush` waits for them")


def tell_backlog(memory: EpisodicMemory) -> None:
    """Where workers do it and nothing was found: what it may be that they have not embedded yet."""
    if embedded(memory.settings):
        return
    counts = memory.sync.counts()
    if waiting := counts.pending + counts.leased:
        those = "1 episode is" if waiting == 1 else f"{waiting} episodes are"
        note(f"{those} not embedded yet and cannot be found; `ww status` says whether workers are there")
