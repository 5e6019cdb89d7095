"""``ww ingest`` and ``ww store``: text comes in."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from ww.cli import values
from ww.cli.kept import kept
from ww.cli.opening import drain, embedded, opened
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit
from ww.cli.progress import bar
from ww_core.errors import InvalidInput
from ww_core.ingest import validate

NO_WAIT = typer.Option(None, "--wait/--no-wait", help="Wait until it is embedded (the default without a broker).")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(everywhere(ingest))
    app.command()(everywhere(store))


def ingest(
    ctx: typer.Context,
    files: list[str] = typer.Argument(
        ...,
        metavar="FILE",
        help=".jsonl, .csv, .txt and .md (an episode a paragraph), also as .gz, directories, or - for standard input.",
    ),
    rejects: Path | None = typer.Option(None, "--rejects", metavar="FILE", help="Keep refused lines here."),
    wait: bool | None = NO_WAIT,
) -> None:
    """Store the episodes of files; a second run stores nothing twice, a grown file adds its new lines."""
    from ww.cli.intake import Intake, opened_for_rejects
    from ww_core.ingest.feed import feed
    from ww_core.ingest.files import read_files

    options = globals_of(ctx)
    session = validate.session(options.session)
    started = time.perf_counter()
    intake = Intake()

    def answer() -> dict[str, Any]:
        return {**intake.answer(), "seconds": time.perf_counter() - started}

    def line() -> str:
        return f"{intake.line()} in {time.perf_counter() - started:.1f} s"

    with kept(answer, line, anything=intake.anything), opened(ctx) as memory, ExitStack() as stack:
        refusals = stack.enter_context(opened_for_rejects(rejects, files)) if rejects is not None else None
        advance_to = stack.enter_context(bar("storing", None))
        feed(
            read_files(
                files,
                session_id=session,
                stdin=sys.stdin.buffer,
                clock=lambda: datetime.now(UTC),
            ),
            memory.sync.store_batch,
            rejects=refusals,
            on_rejected=intake.refused,
            on_changed=intake.changed,
            on_progress=lambda so_far: intake.moved(so_far, advance_to),
        )
        stack.close()
        intake.told(kept=rejects is not None)
        if embedded(memory.settings) if wait is None else wait:
            drain(memory)
    emit(options.json, answer, lambda console: console.print(line()))
    if intake.total.rejected:
        raise typer.Exit(1)


def store(
    ctx: typer.Context,
    text: str = typer.Argument(..., metavar="TEXT", help="The episode; - reads it from standard input."),
    episode_id: str | None = typer.Option(None, "--id", help="Your own id: storing it twice keeps one episode."),
    timestamp: str | None = typer.Option(
        None, "--timestamp", metavar="TIME", help="When it happened (ISO 8601, with offset)."
    ),
    context: list[str] = typer.Option([], "--context", metavar="KEY=VALUE", help="What surrounds it; may be repeated."),
    outcome: str | None = typer.Option(None, "--outcome", help="success, failure, partial or neutral."),
    importance: float | None = typer.Option(None, "--importance", help="0 to 1."),
    wait: bool | None = NO_WAIT,
) -> None:
    """Store one episode."""
    options = globals_of(ctx)
    content = _standard_input() if text == "-" else text
    happened = values.time("--timestamp", timestamp)
    with opened(ctx) as memory:
        receipt = memory.sync.store(
            content,
            session_id=options.session,
            timestamp=happened,
            context=values.context(context),
            outcome=outcome,
            importance=importance,
            episode_id=episode_id,
        )
        state = receipt.state

        def answer() -> dict[str, Any]:
            return {"episode_id": receipt.episode_id, "state": state, "duplicate": receipt.duplicate}

        def line() -> str:
            return f"{receipt.episode_id} {'was there before' if receipt.duplicate else 'stored'} ({state})"

        if embedded(memory.settings) if wait is None else wait:
            with kept(answer, line):
                drain(memory)
                state = memory.sync.get(receipt.episode_id).state or receipt.state
    emit(options.json, answer, lambda console: console.print(line()))


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"standard input is not UTF-8: byte 0x{error.object[error.start]:02x}") from error
