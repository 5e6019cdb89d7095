"""Run one command line: from arguments to an exit code, with every error told in one line."""

from __future__ import annotations

import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TextIO

import typer

from ww.cli import signals
from ww.cli.kept import Unfinished
from ww.cli.options import verbosity, wants_json
from ww.cli.output import note, one_line, write_json
from ww_core.config import SettingsWarning
from ww_core.errors import ConfigurationError, InvalidInput, Unavailable, WorldWeaverError
from ww_core.masking import mask

DONE, NO, USAGE, AWAY = 0, 1, 2, 3

# typer ships its own copy of click, whose UsageError it does not export; BadParameter is one.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(argv: Sequence[str]) -> int:
    """Run ``ww`` with these arguments. Prints what there is to print, raises nothing."""
    as_json, verbose = wants_json(argv), verbosity(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no error
    with warnings.catch_warnings(), signals.raised():
        if not verbose:
            warnings.simplefilter("ignore")
        warnings.simplefilter("always", SettingsWarning)
        warnings.showwarning = _show_warning
        return _guarded(argv, as_json=as_json, verbose=verbose)


def _guarded(argv: Sequence[str], *, as_json: bool, verbose: int) -> int:
    try:
        from ww.cli.app import command

        result = command().main(args=list(argv), prog_name="ww", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except signals.Terminated:
        return signals.TERMINATED
    except Unfinished as unfinished:
        trouble = _trouble(unfinished.__cause__ or unfinished)
        return _report(trouble, as_json=as_json, verbose=verbose, done=unfinished)
    except (Exception, signals.Interrupted) as error:
        return _report(_trouble(error), as_json=as_json, verbose=verbose)
    return result if isinstance(result, int) else DONE


@dataclass(frozen=True, slots=True)
class _Trouble:
    """An error as it is told."""

    kind: str
    message: str
    hint: str
    code: int


def _trouble(error: BaseException) -> _Trouble:
    kind = type(error).__name__
    if isinstance(error, signals.Interrupted | typer.Abort):
        return _Trouble("Interrupted", "interrupted", "", signals.INTERRUPTED)
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        hint = f"see `{context.command_path} --help`" if context else "see `ww --help`"
        return _Trouble("UsageError", _usage_message(error), hint, USAGE)
    if isinstance(error, WorldWeaverError):
        return _Trouble(kind, error.message, error.hint, _code(error))
    if isinstance(error, OSError):
        return _Trouble(kind, _os_message(error), "", AWAY)
    return _Trouble(kind, str(error) or "no message", "this is a fault of World Weaver; -v shows where", NO)


def _code(error: WorldWeaverError) -> int:
    if isinstance(error, InvalidInput | ConfigurationError):
        return USAGE
    return AWAY if isinstance(error, Unavailable) else NO


def _usage_message(error: Any) -> str:
    """What is wrong with the command line, with the option and the value; typer says neither of a bad number."""
    from pydantic import ValidationError

    told = str(error.format_message())
    refused = error.__cause__
    if not isinstance(refused, ValidationError):
        return told
    (first, *_) = refused.errors()
    wanted = {"int": "a whole number", "float": "a number"}.get(first["type"].partition("_")[0])
    option = re.search(r"'(--[\w-]+|[A-Z]+)'", told)
    if wanted is None or option is None:
        return f"{told}, not {first['input']!r}"
    return f"{option[1]} must be {wanted}, not {first['input']!r}"


def _os_message(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _report(trouble: _Trouble, *, as_json: bool, verbose: int, done: Unfinished | None = None) -> int:
    if verbose and trouble.code != signals.INTERRUPTED:
        traceback.print_exc()
    message, hint = mask(trouble.message), mask(trouble.hint)
    with suppress(BrokenPipeError):
        if as_json:
            answer = {} if done is None else done.answer
            write_json({**answer, "error": {"type": trouble.kind, "message": message, "hint": hint}})
        else:
            if done is not None:
                sys.stdout.write(f"{one_line(done.line, 800)}\n")
            note(f"ww: {one_line(message, 800)}" + (f" ({hint})" if hint else ""))
        sys.stdout.flush()
    return trouble.code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    note(f"warning: {mask(str(message))}")
