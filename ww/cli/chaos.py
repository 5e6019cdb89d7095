"""``ww chaos``: faults against a scratch deployment, and the count of what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ww.cli.opening import settings_of
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, note, plain, table
from ww_core.errors import InvalidInput

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(chaos))


def chaos(
    ctx: typer.Context,
    minutes: float = typer.Option(3.0, "--minutes", help="How long faults are made; quiet and proof come after."),
    seed: int = typer.Option(1, "--seed", help="Which faults, in which order."),
    neo4j: Path | None = typer.Option(
        None, "--neo4j", metavar="HOME", help="Keep the record on a Neo4j server of its own, installed here."
    ),
    qdrant: Path | None = typer.Option(
        None, "--qdrant", metavar="PROGRAM", help="Keep the vectors on a Qdrant server of its own: this program."
    ),
    keep: bool = typer.Option(False, "--keep", help="Keep the scratch directory with its stores, ledgers and logs."),
) -> None:
    """Kill, freeze, flush and poison a deployment of its own, then prove that nothing is lost. Never touches yours."""
    from ww_workers.chaos import trial

    options = globals_of(ctx)
    if not 0 < minutes <= 24 * 60:
        raise InvalidInput(f"--minutes must be more than 0 and at most 1440, not {minutes:g}")
    parent, options.data_dir = options.data_dir, None
    settings = settings_of(options)
    directory = trial.scratch(parent, settings)
    whole = False
    try:
        report = trial.run(
            directory, minutes=minutes, seed=seed, settings=settings, neo4j=neo4j, qdrant=qdrant, say=note
        )
        whole = report.whole
    finally:
        if keep or not whole:
            note(f"stores, ledgers and logs are in {directory}")
        else:
            trial.remove(directory)

    def show(console: Console) -> None:
        table(console, ("fault", "#times"), sorted(report.faults.items()))
        console.print(f"{report.attempted} attempted, {report.acknowledged} acknowledged, {report.erased} erased")
        console.print(f"{report.embedded} embedded, {report.dead} dead ({report.poisoned} of them poisoned)")
        console.print(f"{report.lost} lost, {report.doubled} doubled, {report.returned} came back")
        quiet = f"quiet after {report.recovery_seconds:.1f} s" if report.quiet else "never became quiet"
        console.print(f"{quiet}; {'everything is in its place' if report.whole else 'THE PROMISE IS BROKEN'}")

    emit(options.json, lambda: plain(report), show)
    if not report.whole:
        raise typer.Exit(1)
