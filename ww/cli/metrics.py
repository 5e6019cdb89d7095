"""``ww metrics``: the figures of the deployment, for people, for programs and for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.opening import reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, moment, plain, table
from ww_core.errors import InvalidInput
from ww_workers.inspection import queue_lengths

if TYPE_CHECKING:
    from rich.console import Console

    from ww_core.observability.metrics import Snapshot


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(metrics))


def metrics(
    ctx: typer.Context,
    prometheus: bool = typer.Option(False, "--prometheus", help="In Prometheus' text format."),
    stages: bool = typer.Option(False, "--stages", help="Where the time of stores, recalls and background work goes."),
    errors: bool = typer.Option(False, "--errors", help="What failed last in each process, oldest first."),
) -> None:
    """Show the figures of the deployment; what was not measured is null or absent. --stages and --errors choose a part,
    also of the JSON object; --prometheus goes with none of these.
    """
    from ww_core.observability.prometheus import exposition
    from ww_core.observability.watch import figures_of

    as_json = globals_of(ctx).json
    for option, given in (("--json", as_json), ("--stages", stages), ("--errors", errors)):
        if prometheus and given:
            raise InvalidInput(f"--prometheus and {option} exclude each other", hint="ask for one at a time")
    with reading(ctx) as core:
        core.deployment.watch_stores()
        found = figures_of(core.deployment)
        queues = queue_lengths(core.deployment.settings) if prometheus else {}
    if prometheus:
        typer.echo(exposition(found, queues=queues), nl=False)
        return
    parts = [name for name, asked in (("stages", stages), ("last_failures", errors)) if asked]
    emit(as_json, lambda: _picked(found, parts), lambda console: _show(console, found, parts))


def _picked(found: Snapshot, parts: list[str]) -> Mapping[str, Any]:
    """The figures of those names, all of them where none is named."""
    names = parts or [field.name for field in fields(found)]
    return {name: plain(getattr(found, name)) for name in names}


def _show(console: Console, found: Snapshot, parts: list[str]) -> None:
    if not parts:
        rows = [(k, _figure(v)) for k, v in _picked(found, []).items() if not isinstance(v, dict | list)]
        table(console, ("figure", "value"), rows)
    if "stages" in parts:
        _show_stages(console, found)
    if len(parts) > 1:
        console.print()
    if "last_failures" in parts:
        table(
            console,
            ("at", "action", "error", "message"),
            [(moment(one.at), one.action, one.error, one.message) for one in found.last_failures],
        )


def _show_stages(console: Console, found: Snapshot) -> None:
    from ww_core.observability.metrics import StageFigures

    headings = ("stage", *(f"#{field.name}" for field in fields(StageFigures)))
    rows = [(name, *(_figure(value) for value in plain(one).values())) for name, one in found.stages.items()]
    table(console, headings, rows)
    console.print("milliseconds, over the last five minutes")


def _figure(value: float | None) -> str:
    """A figure for people; nothing was measured where there is none."""
    if value is None:
        return "-"
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else f"{value:,}"
