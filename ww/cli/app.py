"""The command tree."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from ww.cli import (
    alerts,
    background,
    bench,
    chaos,
    clusters,
    configure,
    consolidation,
    dead,
    demo,
    doctor,
    episodes,
    history,
    ingest,
    metrics,
    plan,
    recall,
    state,
    system,
    transfer,
)
from ww.cli.options import everywhere, globals_of

HELP = """World Weaver: the memory of an AI agent.

`ww demo` shows what it does on real text; `ww ingest FILE` and `ww recall "..."` do it on yours.
"""


class _Command(TyperCommand):
    """Its usage names what must be given as manuals do: without typer's braces."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


def command() -> Any:
    """The whole command line as one click command."""
    app = typer.Typer(
        name="ww",
        help=HELP,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(everywhere(_root))
    for group in (
        ingest,
        transfer,
        recall,
        episodes,
        consolidation,
        clusters,
        history,
        state,
        metrics,
        alerts,
        dead,
        doctor,
        bench,
        plan,
        background,
        system,
        chaos,
        configure,
        demo,
    ):
        group.register(app)
    for one in app.registered_commands:
        one.cls = _Command
    return typer.main.get_command(app)


def _root(
    ctx: typer.Context, version: bool = typer.Option(False, "--version", help="Say which version this is.")
) -> None:
    if version:
        from ww.cli.output import emit
        from ww_core.version import VERSION

        emit(globals_of(ctx).json, lambda: {"version": VERSION}, lambda console: console.print(f"ww {VERSION}"))
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        if not globals_of(ctx).json:
            typer.echo(ctx.get_help())
            raise typer.Exit(2)
        raise typer.BadParameter("no command was given", ctx=ctx)
