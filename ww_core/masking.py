"""Hide passwords and keys in text that people will see, and texts that errors quote."""

from __future__ import annotations

import re
from types import TracebackType

MASK = "***"

# Everything up to the last @ of a word is user information: a password may itself hold an @ or a slash.
_USER_INFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<info>[^\s\"'<>]*)@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<key>[?&;](?:password|passwd|pwd|secret|token|api[_-]?key)=)[^&;\s\"'<>]+", re.IGNORECASE)


def mask(text: str) -> str:
    """``text`` with the password of every URL in it replaced; user, host, port and path stay readable.

    >>> mask("redis://:hunter2@cache:6379/0 is away")
    'redis://:***@cache:6379/0 is away'
    >>> mask("https://token@host/?api_key=abc")
    'https://***@host/?api_key=***'
    """

    def hide(match: re.Match[str]) -> str:
        user, colon, _ = match["info"].partition(":")
        return f"{match['scheme']}{user if colon else ''}{colon}{MASK}@"

    return _QUERY.sub(rf"\g<key>{MASK}", _USER_INFO.sub(hide, text))


def origin_of(kind: type[BaseException] | None, frames: TracebackType | None) -> str:
    """An error's kind and where it came from, outermost first, as a traceback shows it, without what it says: that may
    be the text that it stumbled over."""
    told = f"{kind.__name__ if kind else 'error'} (what it says is not logged)"
    while frames is not None:
        code = frames.tb_frame.f_code
        told += f'\n  File "{code.co_filename}", line {frames.tb_lineno}, in {code.co_name}'
        frames = frames.tb_next
    return told
