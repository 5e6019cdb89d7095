"""Which episodes of a run are duplicates, and of which: among themselves, and of what is stored already."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ww_core.config import Settings
from ww_core.consolidation.duplicates import Text, fingerprint, fold
from ww_core.consolidation.selection import New, Sample
from ww_core.models import Vector
from ww_core.stores.ports import CONTENT, GraphStore, Search, VectorStore, Where

STORED_HITS = 4
"""Neighbours looked at for each new episode among all that is stored."""


class Folding:
    """Finds the original of each duplicate of one run, never a duplicate itself.

    A whole session is compared pair by pair. In a larger one exact copies are found among all new episodes, near ones
    among those of one batch, and, while the new ones are few enough for the cap, among everything stored.
    """

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        settings: Settings,
        new: New,
        sample: Sample,
        *,
        whole: bool,
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._threshold = settings.duplicate_threshold
        self._session = sample.episodes[0].session_id if sample.episodes else ""
        self._sample = sample
        self._whole = whole
        self._texts = dict(zip(new.ids, new.texts, strict=True))
        self._ask_store = not whole and len(new) <= settings.consolidation_max_samples
        self._first: dict[bytes, str] = {}
        self._heads: dict[str, str] = {}
        """Of what was folded in this run."""
        if not whole:
            for episode in sample.episodes:
                if episode.episode_id not in self._texts and episode.duplicate_of is None:
                    self._first.setdefault(fingerprint(episode.content).whole, episode.episode_id)
            for episode_id, text in self._texts.items():
                self._first.setdefault(text.whole, episode_id)

    def of_sample(self) -> list[str | None]:
        """For each row of the sample the id of its original, None where it is none's duplicate."""
        episodes = self._sample.episodes
        if self._whole:
            texts = [fingerprint(e.content) for e in episodes]
            heads = fold(self._sample.vectors, texts, threshold=self._threshold)
            return [None if head == row else episodes[head].episode_id for row, head in enumerate(heads)]
        rows = np.flatnonzero(self._sample.new)
        found = self.of_batch([episodes[r].episode_id for r in rows], self._sample.vectors[rows])
        heads_of = dict(zip(rows.tolist(), found, strict=True))
        return [heads_of.get(row, episode.duplicate_of) for row, episode in enumerate(episodes)]

    def of_batch(self, ids: Sequence[str], vectors: Vector) -> list[str | None]:
        """The same for new episodes with their vectors (n, d), in session order."""
        texts = [self._texts[episode_id] for episode_id in ids]
        near = fold(vectors, texts, threshold=self._threshold)
        stored = self._in_store(ids, vectors, texts)
        result: list[str | None] = []
        for row, episode_id in enumerate(ids):
            head = self._first[texts[row].whole]
            if head == episode_id:
                head = stored[row] or ids[near[row]]
            head = self._heads.get(head, head)
            if head != episode_id:
                self._heads[episode_id] = head
            result.append(None if head == episode_id else head)
        return result

    def _in_store(self, ids: Sequence[str], vectors: Vector, texts: Sequence[Text]) -> list[str | None]:
        if not self._ask_store or self._threshold >= 1.0 or not ids:
            return [None] * len(ids)
        where = Where(sessions=(self._session,))
        hits = self._vectors.search([Search(CONTENT, vector, where, STORED_HITS) for vector in vectors])
        near = [[h.episode_id for h in found if h.score >= self._threshold] for found in hits]
        older = {h for row, found in enumerate(near) for h in found if h not in self._texts and h != ids[row]}
        episodes = self._graph.get(sorted(older)) if older else {}
        result: list[str | None] = []
        for row, found in enumerate(near):
            original = None
            for hit in found:
                episode = episodes.get(hit)
                if episode is not None and fingerprint(episode.content).exacting == texts[row].exacting:
                    original = episode.duplicate_of or hit
                    break
            result.append(original)
        return result
