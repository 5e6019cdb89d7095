"""``ww dead``: the episodes that could not be embedded, why, and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from ww.cli.opening import drain, embedded, opened, reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, moment, one_line, pick, plain, table
from ww_core.maintenance.dead import dead_letters
from ww_core.maintenance.dead import purge as purge_dead
from ww_core.maintenance.dead import replay as replay_dead
from ww_core.models import DeadLetter

if TYPE_CHECKING:
    from rich.console import Console

    from ww_core.memory import MemoryCore

FIELDS = ("episode_id", "session_id", "attempts", "error", "last_failed_at")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Show, replay or purge what could not be embedded.", rich_markup_mode=None)
    group.command("list")(everywhere(list_))
    group.command()(everywhere(replay))
    group.command()(everywhere(purge))
    app.add_typer(group, name="dead")


def list_(ctx: typer.Context) -> None:
    """Show the dead letters, with the reason."""
    options = globals_of(ctx)
    with reading(ctx) as core:
        found = [
            letter for letter in dead_letters(core.deployment.graph) if options.session in (None, letter.session_id)
        ]

    def show(console: Console) -> None:
        if not found:
            console.print("no dead letters")
            return
        rows = [(one.episode_id, one.attempts, moment(one.last_failed_at), one_line(one.error)) for one in found]
        table(console, ("episode", "#attempts", "last failed", "error"), rows)
        if options.verbose:
            for one in found:
                console.print(f"{one.episode_id}\n{one_line(one.traceback, 4000)}")

    emit(options.json, lambda: {"episodes": [pick(one, FIELDS) for one in found]}, show)


def replay(
    ctx: typer.Context,
    ids: list[str] = typer.Argument(None, metavar="ID", help="Which; none: all."),
) -> None:
    """Try them again, with fresh attempts."""
    options = globals_of(ctx)
    with opened(ctx) as memory:
        found = _meant(memory.core, ids)
        parts = memory.core.deployment
        replay_dead(parts.graph, parts.doorbell, ids or ())
        if found and embedded(memory.settings):
            drain(memory)
        still = {one.episode_id for one in dead_letters(parts.graph)} & {one.episode_id for one in found}
    emit(
        options.json,
        lambda: {"replayed": len(found), "dead": len(still), "episodes": [pick(one, FIELDS) for one in found]},
        lambda console: console.print(f"{len(found)} replayed, {len(still)} dead again"),
    )


def purge(
    ctx: typer.Context,
    ids: list[str] = typer.Argument(None, metavar="ID", help="Which; none: all."),
) -> None:
    """Erase them for good; they count as erased."""
    options = globals_of(ctx)
    with opened(ctx) as memory:
        found = _meant(memory.core, ids)
        parts = memory.core.deployment
        erased = purge_dead(parts.graph, parts.vectors, ids or ())
    emit(
        options.json,
        lambda: {"erased": plain(erased), "episodes": [pick(one, FIELDS) for one in found]},
        lambda console: console.print(f"{erased.episodes} erased"),
    )


def _meant(core: MemoryCore, ids: Sequence[str] | None) -> list[DeadLetter]:
    return [letter for letter in dead_letters(core.deployment.graph) if not ids or letter.episode_id in ids]
