"""What kind of session a query is asked of: who speaks there, and whether neighbours belong together.

A conversation is coherent: an answer stands beside its question, so what surrounds an episode tells what it is about.
A list of unrelated notes is not, and there the same surroundings would only mislead. Which of the two a session is
shows in a sample of it: in a coherent one neighbours are more alike than strangers.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise

import numpy as np

from ww_core.errors import ModelUnavailable
from ww_core.models import Episode, Vector
from ww_core.recall.context import stretches
from ww_core.recall.speakers import speakers_of
from ww_core.stores.ports import GraphStore, VectorStore, Where

SAMPLE = 300
"""Episodes read for a profile, the latest."""
_MIN_PAIRS = 12
"""Fewer neighbours prove nothing: the session counts as incoherent."""
_INCOHERENT, _COHERENT = 0.1, 0.5
"""Effect sizes (see ``coherence``) up to which surroundings say nothing, and from which they count in full."""
_MAX_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Frequency:
    """How many of ``texts`` texts have each word piece; ``having`` by its id."""

    texts: int = 0
    having: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> Frequency:
        """From the word pieces of each text."""
        return cls(len(texts), Counter(piece for pieces in texts for piece in set(pieces)))


@dataclass(frozen=True, slots=True)
class Profile:
    """``coherence`` is between 0 (neighbours are strangers) and 1."""

    speakers: frozenset[str] = frozenset()
    coherence: float = 0.0
    frequency: Frequency = field(default_factory=Frequency)


def coherence(neighbours: Vector, strangers: Vector) -> float:
    """How far neighbours are more alike than strangers, 0 to 1.

    ``neighbours`` (n,) and ``strangers`` (m,) are cosines of pairs. The measure is the difference of their means in
    standard deviations of the strangers, put on a ramp: about 0.7 to 1.1 in conversations, 0 in shuffled lists.
    """
    if len(neighbours) < _MIN_PAIRS or len(strangers) < _MIN_PAIRS:
        return 0.0
    spread = float(strangers.std())
    if not spread > 0:
        return 0.0
    effect = (float(neighbours.mean()) - float(strangers.mean())) / spread
    return min(1.0, max(0.0, (effect - _INCOHERENT) / (_COHERENT - _INCOHERENT)))


def profile_of(sample: Sequence[Episode], vectors: Mapping[str, Vector]) -> Profile:
    """The profile that a sample shows; ``vectors`` by episode id, each (d,) unit length, some may be absent.

    ``sample`` holds consecutive episodes of each of its sessions, in session order.
    """
    speakers: set[str] = set()
    near: list[float] = []
    far: list[float] = []
    by_session = sorted(sample, key=lambda episode: episode.session_id)
    for _, group in groupby(by_session, key=lambda episode: episode.session_id):
        episodes = list(group)
        speakers |= speakers_of(episodes)
        numbers = stretches(episodes)
        known = [(vectors[e.episode_id], n) for e, n in zip(episodes, numbers, strict=True) if e.episode_id in vectors]
        near.extend(float(a @ b) for (a, m), (b, n) in pairwise(known) if m == n)
        half = len(known) // 2
        far.extend(float(known[i][0] @ known[i + half][0]) for i in range(half))
    return Profile(frozenset(speakers), coherence(np.array(near, np.float32), np.array(far, np.float32)))


class Profiles:
    """Profiles of sessions, each from a sample read once in a while. Thread-safe and bounded."""

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        *,
        pieces: Callable[[Sequence[str]], Sequence[Sequence[int]]] | None = None,
        max_age: float = 60.0,
    ) -> None:
        """``pieces`` takes texts apart where their frequency is wanted; ``max_age``: seconds after which a session is
        sampled again."""
        self._pieces = pieces
        self._graph = graph
        self._vectors = vectors
        self._max_age = max_age
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], tuple[float, Profile]] = OrderedDict()

    def forget(self) -> None:
        """Keep nothing: some of what was sampled may have been erased."""
        with self._lock:
            self._known.clear()

    def of(self, sessions: tuple[str, ...], now: float) -> Profile:
        """Of the sessions (of the latest episodes of all where none is named); ``now`` is monotonic seconds."""
        with self._lock:
            entry = self._known.get(sessions)
            if entry is not None and now - entry[0] <= self._max_age:
                self._known.move_to_end(sessions)
                return entry[1]
        sample = self._graph.page(Where(sessions=sessions), limit=SAMPLE, newest_first=True)[::-1]
        stored = self._vectors.vectors([episode.episode_id for episode in sample])
        shown = profile_of(sample, {vector.episode_id: vector.vector for vector in stored})
        pieces: Sequence[Sequence[int]] = ()
        try:
            if self._pieces and sample:
                pieces = self._pieces([episode.content for episode in sample])
        except ModelUnavailable:  # then words alone decide, and nobody asks how rare a word piece is
            return shown
        profile = replace(shown, frequency=Frequency.of(pieces))
        with self._lock:
            self._known[sessions] = (now, profile)
            while len(self._known) > _MAX_KEPT:
                self._known.popitem(last=False)
        return profile
