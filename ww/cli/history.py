"""``ww runs`` and ``ww rollback``: what consolidation did, ending a run early, and taking one back."""

from __future__ import annotations

import typer

from ww.cli.opening import reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, moment, one_line, pick, table
from ww_core.errors import InvalidInput, WorldWeaverError

FIELDS = ("run_id", "session_id", "status", "started_at", "seconds", "considered", "sampled")
ENDING = ("run_id", "session_id", "status")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(everywhere(runs))
    app.command()(everywhere(rollback))


def runs(
    ctx: typer.Context,
    limit: int = typer.Option(50, "--limit", help="How many."),
    cancel: str | None = typer.Option(None, "--cancel", metavar="RUN", help="End this run: it changes nothing."),
) -> None:
    """Show the history of consolidations, newest first."""
    options = globals_of(ctx)
    if limit < 1:
        raise InvalidInput(f"--limit must be at least 1, not {limit}")
    if cancel is not None:
        _cancel(ctx, cancel)
        return
    with reading(ctx) as core:
        found = core.runs(options.session, limit=limit)
    emit(
        options.json,
        lambda: {"runs": [pick(run, FIELDS) for run in found]},
        lambda console: table(
            console,
            ("started", "session", "status", "#considered", "#sampled", "#seconds", "id"),
            [
                (
                    moment(run.started_at),
                    one_line(run.session_id, 24),
                    f"{run.status} {run.progress:.0%}" if run.status == "running" else run.status,
                    run.considered,
                    run.sampled,
                    f"{run.seconds:.1f}",
                    run.run_id,
                )
                for run in found
            ],
        ),
    )


def _cancel(ctx: typer.Context, run_id: str) -> None:
    with reading(ctx) as core:
        run = core.cancel(run_id)
    emit(
        globals_of(ctx).json,
        lambda: pick(run, ENDING),
        lambda console: console.print(f"run {run.run_id} of {one_line(run.session_id)} is cancelled"),
    )


def rollback(
    ctx: typer.Context, run_id: str = typer.Argument(..., metavar="RUN", help="As `ww runs` shows it.")
) -> None:
    """Take a session's latest run back: what was visible before it is visible again."""
    with reading(ctx) as core:
        try:
            run = core.rollback(run_id)
        except InvalidInput as error:  # well written, but the answer is no
            raise WorldWeaverError(error.message, hint=error.hint) from error
    emit(
        globals_of(ctx).json,
        lambda: pick(run, ENDING),
        lambda console: console.print(f"run {run.run_id} of {one_line(run.session_id)} is taken back"),
    )
