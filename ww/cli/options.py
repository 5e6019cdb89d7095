"""The options that every command takes, before its name or after it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

PANEL = "Everywhere"


@dataclass(slots=True)
class Globals:
    """What was asked for on the command line as a whole."""

    config: Path | None = None
    data_dir: Path | None = None
    session: str | None = None
    json: bool = False
    verbose: int = 0


def globals_of(ctx: typer.Context) -> Globals:
    """The options of this invocation."""
    root = ctx.find_root()
    if not isinstance(root.obj, Globals):
        root.obj = Globals()
    return root.obj


def wants_json(argv: Sequence[str]) -> bool:
    """Whether ``--json`` is among the options, also where the command line cannot be parsed."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in options


def verbosity(argv: Sequence[str]) -> int:
    """How often ``-v`` is among the options, also where the command line cannot be parsed."""
    options = argv[: argv.index("--")] if "--" in argv else argv
    return sum(len(part) - 1 for part in options if part[:1] == "-" and part[1:] and set(part[1:]) == {"v"})


def _directory(text: str) -> Path:
    # a shell variable that was never set would otherwise mean the current directory
    if not text.strip():
        raise typer.BadParameter("must name a directory")
    return Path(text)


_EVERYWHERE: dict[str, tuple[Any, Any]] = {
    "config": (
        Path | None,
        typer.Option(None, "--config", metavar="FILE", help="The settings file.", rich_help_panel=PANEL),
    ),
    "data_dir": (
        Path | None,
        typer.Option(
            None,
            "--data-dir",
            metavar="DIR",
            parser=_directory,
            help="Where the embedded stores are.",
            rich_help_panel=PANEL,
        ),
    ),
    "session": (
        str | None,
        typer.Option(None, "--session", metavar="ID", help="The session that is meant.", rich_help_panel=PANEL),
    ),
    "json": (bool, typer.Option(False, "--json", help="One JSON object on stdout.", rich_help_panel=PANEL)),
    "verbose": (
        int,
        typer.Option(
            0,
            "-v",
            "--verbose",
            count=True,
            help="Say more; twice, still more.",
            show_default=False,
            rich_help_panel=PANEL,
        ),
    ),
}
_PREFIX = "everywhere_"


def everywhere(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` (its first parameter is the context) with the options that every command takes added to its own.

    What was given is kept in the Globals of the invocation; given twice, the later place wins.
    """

    @functools.wraps(function)
    def command(ctx: typer.Context, **given: Any) -> None:
        options = globals_of(ctx)
        for name in _EVERYWHERE:
            value = given.pop(_PREFIX + name)
            if value not in (None, False, 0):
                setattr(options, name, value)
        function(ctx, **given)

    own = inspect.signature(function, eval_str=True)
    added = [
        inspect.Parameter(_PREFIX + name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _EVERYWHERE.items()
    ]
    signature = own.replace(parameters=[*own.parameters.values(), *added])
    del command.__wrapped__  # typer would read the annotations of what is wrapped
    vars(command)["__signature__"] = signature  # what inspect.signature looks at first
    command.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    return command
