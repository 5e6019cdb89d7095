"""``ww status``, ``flush`` and ``verify``: how the memory is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.opening import drain, embedded, opened, reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, moment, note, one_line, pick, plain, table
from ww_core.errors import FlushTimeout, InvalidInput
from ww_core.models import Counts
from ww_core.status import COUNTS, Status, status_of
from ww_workers.inspection import WorkerStatus, queue_lengths
from ww_workers.inspection import workers as answering

if TYPE_CHECKING:
    from rich.console import Console

    from ww.memory.episodic import EpisodicMemory

REPAIR_SECONDS = 24 * 3600.0
"""How long ``verify --repair`` waits: a day embeds millions."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(everywhere(status))
    app.command()(everywhere(flush))
    app.command()(everywhere(verify))


def status(ctx: typer.Context) -> None:
    """Show the backlog, the workers, the last run and the sizes."""
    options = globals_of(ctx)
    with reading(ctx) as core:
        found = status_of(core.deployment)
        queues = queue_lengths(core.deployment.settings)
        workers = answering(core.deployment.settings)
        if options.session:
            found = found.of_session(core.counts(options.session))

    def as_json() -> dict[str, Any]:
        last = found.last_run
        return {
            "episodes": pick(found.episodes, COUNTS),
            "oldest_pending_seconds": plain(found.oldest_pending_seconds),
            "queues": queues,
            "workers": plain(workers),
            "stores": plain(found.stores),
            "running": [pick(run, ("run_id", "session_id", "progress", "started_at")) for run in found.running],
            "last_run": None if last is None else pick(last, ("run_id", "session_id", "status", "started_at")),
        }

    emit(options.json, as_json, lambda console: _show(console, found, queues, workers))


def _show(console: Console, found: Status, queues: Mapping[str, int], workers: Sequence[WorkerStatus]) -> None:
    table(console, [f"#{name}" for name in COUNTS], [[getattr(found.episodes, name) for name in COUNTS]])
    if found.oldest_pending_seconds is not None:
        console.print(f"oldest pending: {found.oldest_pending_seconds:.1f} s")
    for name, store in found.stores.items():
        size = f", {store.bytes / 1e6:.1f} MB" if store.bytes is not None else ""
        console.print(f"{name}: {store.kind} at {one_line(store.where)}{size}")
    if found.last_run is not None:
        run = found.last_run
        console.print(
            f"last run: {one_line(run.session_id)}, {run.status}, {moment(run.started_at or run.requested_at)}"
        )
    for run in found.running:
        console.print(
            f"running: {one_line(run.session_id)}, {run.progress:.0%}, since {moment(run.started_at)}, {run.run_id}"
        )
    for queue, length in queues.items():
        console.print(f"queue {queue}: {length}")
    for worker in workers:
        console.print(f"worker {one_line(worker.name)}: {', '.join(worker.queues)}")


def flush(
    ctx: typer.Context,
    timeout: float = typer.Option(600.0, "--timeout", metavar="SECONDS", help="How long to wait."),
) -> None:
    """Wait until everything stored is embedded or dead."""
    if not timeout >= 0:
        raise InvalidInput(f"--timeout must be seconds from 0 on, not {timeout}")
    with opened(ctx) as memory:
        _settle(memory, timeout)
        counts = memory.sync.counts()
    emit(
        globals_of(ctx).json, lambda: {"episodes": pick(counts, COUNTS)}, lambda console: _show_counts(console, counts)
    )


def _settle(memory: EpisodicMemory, timeout: float) -> None:
    if not embedded(memory.settings):
        memory.sync.flush(timeout=timeout)
    elif not drain(memory, timeout=timeout):
        counts = memory.sync.counts()
        raise FlushTimeout(
            f"{counts.pending + counts.leased} episodes are still pending after {timeout:g} seconds",
            hint="they are kept; `ww flush` waits on, --timeout says how long",
        )


def _show_counts(console: Console, counts: Counts) -> None:
    table(console, [f"#{name}" for name in COUNTS], [[getattr(counts, name) for name in COUNTS]])


def verify(
    ctx: typer.Context,
    repair: bool = typer.Option(
        False, "--repair", help="First embed again what has no points, as after restoring a backup, and wait for it."
    ),
) -> None:
    """Check the accounting and every embedded episode's points against the stores."""
    if repair:
        with opened(ctx) as memory:
            reopened, orphans = memory.core.repair()
            note(f"{reopened} episodes had no points, {orphans} had points and no row")
            _settle(memory, REPAIR_SECONDS)
    with reading(ctx) as core:
        found = core.verify()

    def show(console: Console) -> None:
        table(
            console,
            ("check", "ok", "#expected", "#found", "examples"),
            [
                (one.name, "yes" if one.ok else "NO", one.expected, one.found, ", ".join(one.examples))
                for one in found.checks
            ],
        )
        console.print("everything is in its place" if found.ok else "something is missing or left over")

    emit(globals_of(ctx).json, lambda: plain(found), show)
    if not found.ok:
        raise typer.Exit(1)
