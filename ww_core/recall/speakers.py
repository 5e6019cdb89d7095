"""Who speaks: the speaker of an episode, and the speakers of a session."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ww_core.models import Episode

_PREFIX = re.compile(r"^([^\W\d_][\w.'’-]{0,30}(?: [^\W\d_][\w.'’-]{0,30}){0,2}): ")
"""``Name: text``: one to three words before the first colon."""

ROLES = frozenset({"user", "assistant", "system", "tool", "human", "ai", "agent"})
"""Speakers, in lower case, that are no names."""
_MIN_TURNS = 2
_MIN_COVERAGE = 0.5
"""A session is a conversation when at least this share of its episodes names a speaker."""
_MIN_SHARE = 0.02
"""Of the episodes seen; a rarer prefix (``Warning: ...``) names nobody."""


def speaker_of(episode: Episode) -> str | None:
    """The context's ``speaker``, else its ``role``, else a ``Name:`` prefix of the text."""
    return speaker_in(episode.content, episode.context)


def speaker_in(content: str, context: Mapping[str, Any]) -> str | None:
    """As ``speaker_of``, of an episode's parts."""
    for key in ("speaker", "role"):
        value = context.get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    match = _PREFIX.match(content[:120])
    return match.group(1) if match else None


def speakers_of(episodes: Iterable[Episode]) -> frozenset[str]:
    """The speakers of a sample of one session; empty where it is no conversation."""
    names = [speaker_of(episode) for episode in episodes]
    turns = Counter(name for name in names if name is not None)
    floor = max(_MIN_TURNS, _MIN_SHARE * len(names))
    speakers = {name: n for name, n in turns.items() if n >= floor}
    return frozenset(speakers) if sum(speakers.values()) >= _MIN_COVERAGE * len(names) else frozenset()
