"""``ww config``: the settings in force, where each came from, and a file to start from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ww.cli.opening import settings_of
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, table
from ww_core.config.layers import FILE_NAME
from ww_core.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(config))


def config(
    ctx: typer.Context,
    init: bool = typer.Option(False, "--init", help=f"Write {FILE_NAME}, here or where --config says."),
    force: bool = typer.Option(False, "--force", help="With --init: replace a file that is there."),
) -> None:
    """Show the settings in force and where each came from; secrets stay hidden."""
    options = globals_of(ctx)
    if init:
        path = _written(options.config or Path(FILE_NAME), force=force)
        emit(options.json, lambda: {"written": str(path)}, lambda console: console.print(f"wrote {path}"))
        return
    settings = settings_of(options)
    values, sources = settings.shown(), settings.sources()

    def show(console: Console) -> None:
        table(console, ("setting", "source", "value"), [(key, sources[key], _text(values[key])) for key in values])

    emit(
        options.json,
        lambda: {"settings": {key: {"value": values[key], "source": sources[key]} for key in values}},
        show,
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(str(part) for part in value) if isinstance(value, list) else str(value)


def _written(path: Path, *, force: bool) -> Path:
    from ww_core.config.template import template

    try:
        with path.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(template())
    except FileExistsError:
        raise ConfigurationError(f"{path} exists", hint="--force replaces it") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    return path
