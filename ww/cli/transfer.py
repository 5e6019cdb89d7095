"""``ww export`` and ``ww import``: a session, or everything, as lines of JSON and back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

import typer

from ww.cli.ingest import NO_WAIT
from ww.cli.kept import kept
from ww.cli.opening import drain, embedded, opened, reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, note
from ww.cli.progress import bar
from ww_core.errors import InvalidInput
from ww_core.ingest.gunzip import packed
from ww_core.sessions import must_exist

STANDARD = "-"
LEFT_OUT = "clusters and runs are not in it: `ww consolidate` makes them again"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("export")(everywhere(export_))
    app.command("import")(everywhere(import_))


def export_(
    ctx: typer.Context,
    file: str = typer.Argument(
        ..., metavar="FILE", help="Where to, as JSONL, packed where it ends in .gz; - is standard output."
    ),
    vectors: bool = typer.Option(False, "--vectors", help="With the vectors, so that they need not be made again."),
) -> None:
    """Write every episode, or those of --session, to a file that `ww import` reads; no clusters, runs or settings."""
    from ww_core.transfer import export

    options = globals_of(ctx)
    if file == STANDARD and options.json:
        raise InvalidInput("--json needs standard output for its answer", hint="export to a file, or leave out --json")
    with reading(ctx) as core, bar("exporting", None) as advance_to:
        parts = core.deployment
        must_exist(parts.graph, options.session)
        made_by = None
        if vectors:
            made_by = (parts.vectors, parts.embedding.fingerprint)
            if parts.graph.counts().embedded:
                parts.vectors.ensure(parts.embedding.fingerprint)  # or the digest written would be another model's
        with _written(file) as raw, packed(raw, file) as out:
            lines = export(
                parts.graph,
                out,
                session_id=options.session,
                vectors=made_by,
                on_progress=lambda done: advance_to(done, None),
            )
    if file == STANDARD:
        note(f"{lines} episodes exported; {LEFT_OUT}")
        return
    emit(
        options.json,
        lambda: {"exported": lines},
        lambda console: console.print(f"{lines} episodes exported to {file}; {LEFT_OUT}"),
    )


@contextmanager
def _written(file: str) -> Iterator[IO[bytes]]:
    """The file under its name only once it is whole and on disk; readable by this user alone."""
    if file == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    if path.exists() and not path.is_file():  # a device or a pipe is written as it is
        with _openable(file), path.open("wb") as out:
            yield out
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _openable(file):
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        with _openable(file):
            draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


@contextmanager
def _openable(file: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidInput(f"cannot write {file!r}: {error.strerror}") from error


def import_(
    ctx: typer.Context,
    file: str = typer.Argument(..., metavar="FILE", help="What `ww export` wrote, also as .gz; - is standard input."),
    rejects: Path | None = typer.Option(None, "--rejects", metavar="FILE", help="Keep refused lines here."),
    wait: bool | None = NO_WAIT,
) -> None:
    """Store the episodes of an export as they were; a second run stores nothing twice, erased ids are refused."""
    from ww.cli.intake import Intake, opened_for_rejects
    from ww_core.ingest.feed import Ingested, feed
    from ww_core.transfer import read_export

    options = globals_of(ctx)
    intake = Intake()
    with kept(intake.answer, intake.line, anything=intake.anything), ExitStack() as stack:
        stream = stack.enter_context(_read(file))
        memory = stack.enter_context(opened(ctx))
        parts = memory.core.deployment
        here = embedded(memory.settings)
        waits = here if wait is None else wait
        refusals = stack.enter_context(opened_for_rejects(rejects, [file])) if rejects is not None else None
        with bar("importing", None) as advance_to:

            def moved(so_far: Ingested) -> None:
                intake.moved(so_far, advance_to)
                if here and waits:
                    drain(memory)  # while the vectors of these lines are still at hand

            feed(
                read_export(
                    stream,
                    file,
                    session_id=options.session,
                    model=parts.embedding.fingerprint if here else None,
                    on_vector=parts.embedding.seed,
                ),
                parts.ingest.restore,
                rejects=refusals,
                on_rejected=intake.refused,
                on_changed=intake.changed,
                on_progress=moved,
            )
        intake.told(kept=rejects is not None)
        if waits:
            drain(memory)
    if not intake.anything() and options.session is not None:
        note(f"no line is of session {options.session!r}: --session takes the episodes of that session alone")
    emit(options.json, intake.answer, lambda console: console.print(intake.line()))
    if intake.total.rejected:
        raise typer.Exit(1)


@contextmanager
def _read(file: str) -> Iterator[IO[bytes]]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        stream = open(file, "rb")  # noqa: SIM115 - closed below, the error is translated here
    except OSError as error:
        raise InvalidInput(f"cannot read {file!r}: {error.strerror}") from error
    with stream:
        yield stream
