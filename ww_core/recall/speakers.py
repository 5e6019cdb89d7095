"""Who speaks: the speaker of an episode, and the speakers that a session is known to have."""

from __future__ import annotations

import re
import threading
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ww_core.models import Episode
from ww_core.stores.ports import GraphStore, Where

_PREFIX = re.compile(r"^([^\W\d_][\w.'’-]{0,30}(?: [^\W\d_][\w.'’-]{0,30}){0,2}): ")
"""``Name: text``: one to three words before the first colon."""

_MIN_TURNS = 2
_MIN_COVERAGE = 0.5
"""A session is a conversation when at least this share of its episodes names a speaker."""
_MIN_SHARE = 0.02
"""Of the episodes seen; a rarer prefix (``Warning: ...``) names nobody."""
SAMPLE = 300
"""Episodes read to learn who speaks."""
_MAX_KEPT = 1000


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


class SpeakerBook:
    """The known speakers of sessions, each from a sample read once in a while. Thread-safe and bounded."""

    def __init__(self, graph: GraphStore, *, max_age: float = 60.0) -> None:
        """``max_age``: seconds after which a session is sampled again."""
        self._graph = graph
        self._max_age = max_age
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], tuple[float, frozenset[str]]] = OrderedDict()

    def of(self, sessions: tuple[str, ...], now: float) -> frozenset[str]:
        """Whoever speaks in the sessions (in the latest episodes of all where none is named); ``now`` in seconds."""
        with self._lock:
            entry = self._known.get(sessions)
            if entry is not None and now - entry[0] <= self._max_age:
                self._known.move_to_end(sessions)
                return entry[1]
        by_session: dict[str, list[Episode]] = defaultdict(list)
        for episode in self._graph.page(Where(sessions=sessions), limit=SAMPLE, newest_first=True):
            by_session[episode.session_id].append(episode)
        names = frozenset().union(*(speakers_of(sample) for sample in by_session.values()))
        with self._lock:
            self._known[sessions] = (now, names)
            while len(self._known) > _MAX_KEPT:
                self._known.popitem(last=False)
        return names
