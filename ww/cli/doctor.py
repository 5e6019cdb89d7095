"""``ww doctor``: what is wrong, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ww.cli.opening import reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, one_line, plain

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(doctor))


def doctor(ctx: typer.Context) -> None:
    """Look at stores, model, broker, workers and backlog; say what is wrong. Exit 1 where something is."""
    from ww_workers.doctor import examine

    with reading(ctx) as core:
        found = examine(core.deployment)
    ok = all(one.ok for one in found)

    def show(console: Console) -> None:
        for one in found:
            console.print(f"{'ok ' if one.ok else 'BAD'}  {one.name}: {one_line(one.message)}")
            if not one.ok and one.hint:
                console.print(f"     {one_line(one.hint)}")

    emit(globals_of(ctx).json, lambda: {"ok": ok, "checks": plain(found)}, show)
    if not ok:
        raise typer.Exit(1)
