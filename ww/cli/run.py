"""Run one command line: from arguments to an exit code, with every error told in one line."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TextIO

import typer

from ww.cli.options import verbosity, wants_json
from ww.cli.output import note, one_line, write_json
from ww_core.config import SettingsWarning
from ww_core.errors import ConfigurationError, InvalidInput, Unavailable, WorldWeaverError
from ww_core.masking import mask

DONE, NO, USAGE, AWAY, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

# typer ships its own copy of click, whose UsageError it does not export; BadParameter is one.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def run(argv: Sequence[str]) -> int:
    """Run ``ww`` with these arguments. Prints what there is to print, raises nothing."""
    as_json, verbose = wants_json(argv), verbosity(argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character is no error
    with warnings.catch_warnings(), _terminable():
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
    except (KeyboardInterrupt, typer.Abort):
        return _report("Interrupted", "interrupted", "", as_json=as_json, code=INTERRUPTED)
    except _Terminated:
        return TERMINATED
    except _UsageError as error:
        message = _usage_message(error)
        context = getattr(error, "ctx", None)
        hint = f"see `{context.command_path} --help`" if context else "see `ww --help`"
        return _report("UsageError", message, hint, as_json=as_json, code=USAGE)
    except WorldWeaverError as error:
        if verbose:
            traceback.print_exc()
        return _report(type(error).__name__, error.message, error.hint, as_json=as_json, code=_code(error))
    except OSError as error:
        if verbose:
            traceback.print_exc()
        return _report(type(error).__name__, _os_message(error), "", as_json=as_json, code=AWAY)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        hint = "this is a fault of World Weaver; -v shows where"
        return _report(type(error).__name__, str(error) or "no message", hint, as_json=as_json, code=NO)
    return result if isinstance(result, int) else DONE


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


def _report(kind: str, message: str, hint: str, *, as_json: bool, code: int) -> int:
    message, hint = mask(message), mask(hint)
    with suppress(BrokenPipeError):
        if as_json:
            write_json({"error": {"type": kind, "message": message, "hint": hint}})
            sys.stdout.flush()
        else:
            note(f"ww: {one_line(message, 800)}" + (f" ({hint})" if hint else ""))
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    note(f"warning: {mask(str(message))}")


class _Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C, so that leases are given back."""


@contextmanager
def _terminable() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated
