"""Which episodes of a run are duplicates, and of which: among themselves, and of what is stored already."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ww_core.config import Settings
from ww_core.consolidation.duplicates import Texts, fold, fold_within
from ww_core.consolidation.groups import Groups
from ww_core.consolidation.selection import New, Sample
from ww_core.models import Vector
from ww_core.stores.ports import CONTENT, GraphStore, Search, VectorStore, Where

STORED_HITS = 4
"""Neighbours looked at for each new episode among all that is stored."""
PAGE = 5000
"""Texts whose copies are asked for at a time."""


class Folding:
    """Finds the original of each duplicate of one run, never a duplicate itself.

    A whole session is compared pair by pair. In a larger one exact copies are found among all new episodes and all that
    is stored, near ones in the cell that each is nearest to: among those of one batch, and, while the new ones are few
    enough for the cap, among what is stored.
    """

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        settings: Settings,
        new: New,
        sample: Sample,
        groups: Groups,
        *,
        whole: bool,
        first: bool,
        step: Callable[[], None],
    ) -> None:
        """``first``: no run of the session is visible, so that nothing stored has a copy among the new ones. ``step``
        is called after each PAGE of texts, and between blocks of rows."""
        self._graph = graph
        self._vectors = vectors
        self._threshold = settings.duplicate_threshold
        self._session = sample.episodes[0].session_id if sample.episodes else ""
        self._sample = sample
        self._whole = whole
        self._new = new
        self._groups = groups
        self._ask_store = not whole and len(new) <= settings.consolidation_max_samples
        self._step = step
        self._known: dict[bytes, str] = {}
        """Originals stored before this run, by the digest of the texts that have copies among the new ones."""
        self._heads: dict[str, str] = {}
        """Of what was folded in this run."""
        if not whole:
            self._first = new.texts.first()
            once = np.flatnonzero(self._first == np.arange(len(new)))
            for start in range(0, 0 if first else len(once), PAGE):
                self._known |= graph.copies(self._session, new.texts[once[start : start + PAGE]].keys())
                step()
        self._originals = set(self._known.values())
        """What is folded into nothing, because something is folded into it."""

    def of_sample(self, nearest: NDArray[np.int32]) -> list[str | None]:
        """For each row of the sample, with its nearest group (n,), the id of its original; None where it has none."""
        episodes = self._sample.episodes
        if self._whole:
            texts = Texts.of(e.content for e in episodes)
            heads = fold(self._sample.vectors, texts, threshold=self._threshold, step=self._step).tolist()
            return [None if head == row else episodes[head].episode_id for row, head in enumerate(heads)]
        rows = np.flatnonzero(self._sample.new)
        found = self.of_batch(self._sample.place[rows], self._sample.vectors[rows], nearest[rows])
        heads_of = dict(zip(rows.tolist(), found, strict=True))
        return [heads_of.get(row, episode.duplicate_of) for row, episode in enumerate(episodes)]

    def of_batch(self, places: NDArray[np.int64], vectors: Vector, nearest: NDArray[np.int32]) -> list[str | None]:
        """The same for the new episodes at the places (n,) with their vectors (n, d), in session order."""
        texts = self._new.texts[places]
        near = fold_within(nearest, vectors, texts, threshold=self._threshold)
        stored = self._in_store(places, vectors, nearest, texts)
        first = self._first[places]
        keys = texts.keys()
        like_others = (first != places) | (near != np.arange(len(places)))
        like_others[[row for row, text in enumerate(keys) if text in self._known] + list(stored)] = True
        result: list[str | None] = [None] * len(places)
        for row in np.flatnonzero(like_others).tolist():
            episode_id = self._new.ids[places[row]]
            head = self._known.get(keys[row]) or self._new.ids[first[row]]
            if head == episode_id:
                head = stored.get(row) or self._new.ids[places[near[row]]]
            head = episode_id if episode_id in self._originals else self._heads.get(head, head)
            if head != episode_id:
                self._heads[episode_id] = result[row] = head
                self._originals.add(head)
        return result

    def _in_store(
        self, places: NDArray[np.int64], vectors: Vector, nearest: NDArray[np.int32], texts: Texts
    ) -> dict[int, str]:
        """Of rows that are near an episode stored before this run, its id or its original's."""
        if not self._ask_store or self._threshold >= 1.0 or not len(places):
            return {}
        rows = np.flatnonzero(nearest >= 0).tolist()
        cells = [(self._groups.items[place].cluster_id,) for place in nearest[rows].tolist()]
        within = [Where(sessions=(self._session,), cells=cell) for cell in cells]
        hits = self._vectors.search(
            [Search(CONTENT, vectors[row], where, STORED_HITS) for row, where in zip(rows, within, strict=True)]
        )
        near = zip(rows, ([h.episode_id for h in found if h.score >= self._threshold] for found in hits), strict=True)
        new = set(self._new.ids)
        older = {row: [h for h in found if h not in new] for row, found in near}
        episodes = self._graph.get(sorted({h for found in older.values() for h in found}))
        exacting = dict(zip(episodes, Texts.of(e.content for e in episodes.values()).exacting.tolist(), strict=True))
        result: dict[int, str] = {}
        for row, found in older.items():
            same = [h for h in found if h in exacting and exacting[h] == texts.exacting[row]]
            if same:
                result[row] = episodes[same[0]].duplicate_of or same[0]
        return result
