"""``ww alerts``: which figures of the deployment are worse than they should be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.opening import reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, pick, plain, table

if TYPE_CHECKING:
    from rich.console import Console

    from ww_core.observability.alerts import Alert

FIELDS = ("name", "level", "samples", "value", "warning", "critical", "hint")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(alerts))


def alerts(
    ctx: typer.Context,
    history: bool = typer.Option(False, "--history", help="Show also what changed before, oldest first."),
) -> None:
    """Show the alerts of all processes together; exit 1 where one is critical."""
    from ww_core.observability.alerts import Level
    from ww_core.observability.watch import alert_watch

    with reading(ctx) as core:
        watch = alert_watch(core.deployment)
        found = watch.look()
        before = watch.history() if history else ()

    def as_json() -> dict[str, Any]:
        answer: dict[str, Any] = {"alerts": [pick(alert, FIELDS) for alert in found]}
        return {**answer, "history": plain(before)} if history else answer

    def show(console: Console) -> None:
        _show(console, found)
        if history:
            console.print()
            table(
                console,
                ("at", "alert", "before", "level", "#value", "reason"),
                [(c.at[:19], c.name, c.before, c.level, _figure(c.name, c.value), c.reason) for c in before],
            )

    emit(globals_of(ctx).json, as_json, show)
    if any(alert.level is Level.CRITICAL for alert in found):
        raise typer.Exit(1)


def _show(console: Console, found: Sequence[Alert]) -> None:
    table(
        console,
        ("alert", "level", "#samples", "#value", "#warning", "#critical"),
        [
            (a.name, a.level.value, a.samples, *(_figure(a.name, x) for x in (a.value, a.warning, a.critical)))
            for a in found
        ],
    )
    for alert in found:
        if alert.hint:
            console.print(f"{alert.name}: {alert.hint}")


def _figure(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f} ms" if name == "recall_p95" else f"{value:.1%}"
