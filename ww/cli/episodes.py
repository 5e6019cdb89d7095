"""``ww list``, ``get``, ``sessions``, ``update`` and ``forget``: reading, correcting, erasing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ww.cli import values
from ww.cli.kept import kept
from ww.cli.opening import drain, embedded, opened, reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, harmless, moment, one_line, pick, table
from ww_core.errors import InvalidInput
from ww_core.models import Episode

if TYPE_CHECKING:
    from rich.console import Console

FIELDS = (
    "episode_id",
    "session_id",
    "timestamp",
    "content",
    "context",
    "outcome",
    "importance",
    "state",
    "cluster_id",
    "nearest",
    "duplicate_of",
    "stored_at",
    "embedded_at",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("list")(everywhere(list_))
    app.command()(everywhere(get))
    app.command()(everywhere(sessions))
    app.command()(everywhere(update))
    app.command()(everywhere(forget))


def as_json(episode: Episode) -> dict[str, Any]:
    """An episode as ``get --json`` prints it."""
    return pick(episode, FIELDS)


def show_beside(console: Console, beside: Sequence[Episode], episode_id: str, *, indent: str = "") -> None:
    """An episode among its neighbours, for people."""
    from rich.text import Text

    for one in beside:
        mark = ">" if one.episode_id == episode_id else " "
        console.print(Text(f"{indent}{mark} {moment(one.timestamp)}  {one_line(one.content, 200)}"))


def list_(
    ctx: typer.Context,
    since: str | None = typer.Option(None, "--since", metavar="TIME", help="Not before (ISO 8601, with offset)."),
    until: str | None = typer.Option(None, "--until", metavar="TIME", help="Before."),
    limit: int = typer.Option(100, "--limit", help="How many, at least 1."),
) -> None:
    """List episodes in the order of their sessions."""
    options = globals_of(ctx)
    with reading(ctx) as core:
        pages = core.pages(
            session_id=options.session,
            since=values.time("--since", since),
            until=values.time("--until", until),
            limit=limit,
        )
        found = [episode for page in pages for episode in page]
    emit(
        options.json,
        lambda: {"episodes": [as_json(episode) for episode in found]},
        lambda console: table(
            console,
            ("time", "session", "state", "id", "content"),
            [
                (moment(e.timestamp), one_line(e.session_id, 24), e.state, e.episode_id, one_line(e.content, 200))
                for e in found
            ],
        ),
    )


def get(
    ctx: typer.Context,
    episode_id: str = typer.Argument(..., metavar="ID"),
    around: int = typer.Option(0, "--around", metavar="N", help="And N episodes before and after it in its session."),
) -> None:
    """Show one episode whole."""
    values.around(around)
    with reading(ctx) as core:
        found = core.get(episode_id)
        beside = core.neighbours(episode_id, before=around, after=around) if around else []

    def show(console: Any) -> None:
        from rich.text import Text

        for name in FIELDS:
            value = getattr(found, name)
            if name != "content" and value not in (None, {}, ""):
                console.print(Text(f"{name:<13} {one_line(str(value), 2000)}"))
        console.print()
        console.print(Text(harmless(found.content)))
        show_beside(console, beside, episode_id)

    def json() -> dict[str, Any]:
        shown: dict[str, Any] = {"episode": as_json(found)}
        return shown if not around else {**shown, "around": [as_json(one) for one in beside]}

    emit(globals_of(ctx).json, json, show)


def sessions(ctx: typer.Context) -> None:
    """List the sessions."""
    with reading(ctx) as core:
        found = core.sessions()
    emit(
        globals_of(ctx).json,
        lambda: {
            "sessions": [pick(one, ("session_id", "episodes", "first_at", "last_at", "clusters")) for one in found]
        },
        lambda console: table(
            console,
            ("session", "#episodes", "#clusters", "first", "last"),
            [(one.session_id, one.episodes, one.clusters, moment(one.first_at), moment(one.last_at)) for one in found],
        ),
    )


def update(
    ctx: typer.Context,
    episode_id: str = typer.Argument(..., metavar="ID"),
    content: str | None = typer.Option(None, "--content", metavar="TEXT", help="New text; - reads standard input."),
    timestamp: str | None = typer.Option(None, "--timestamp", metavar="TIME", help="ISO 8601, with offset."),
    context: list[str] = typer.Option([], "--context", metavar="KEY=VALUE", help="The new context; may be repeated."),
    outcome: str | None = typer.Option(None, "--outcome", help="success, failure, partial or neutral."),
    importance: float | None = typer.Option(None, "--importance", help="0 to 1."),
) -> None:
    """Correct an episode; what is not given stays."""
    given: dict[str, Any] = {
        "content": sys.stdin.read() if content == "-" else content,
        "timestamp": values.time("--timestamp", timestamp),
        "context": values.context(context) or None,
        "outcome": outcome,
        "importance": importance,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise InvalidInput(
            "nothing to update", hint="give --content, --timestamp, --context, --outcome or --importance"
        )
    with opened(ctx) as memory:
        memory.sync.update(episode_id, **changes)

        def answer() -> dict[str, Any]:
            return {"episode_id": episode_id}

        def line() -> str:
            return f"{harmless(episode_id)} updated"

        if content is not None and embedded(memory.settings):
            with kept(answer, line):
                drain(memory)
    emit(globals_of(ctx).json, answer, lambda console: console.print(line()))


def forget(
    ctx: typer.Context,
    episode_id: str | None = typer.Argument(None, metavar="ID"),
) -> None:
    """Erase an episode, or with --session a whole session, for good."""
    options = globals_of(ctx)
    if (episode_id is None) == (options.session is None):
        raise InvalidInput("forget takes an episode's ID or --session ID, one of them")
    with opened(ctx) as memory:
        if episode_id is not None:
            erased = memory.sync.forget(episode_id)
        else:
            erased = memory.sync.forget(session_id=options.session)
    emit(
        options.json,
        lambda: {"erased": pick(erased, ("episodes", "vectors", "memberships"))},
        lambda console: console.print(
            f"erased {erased.episodes} episodes, {erased.vectors} vectors, {erased.memberships} memberships"
        ),
    )
