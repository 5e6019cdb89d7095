"""The pool of candidates: what the searches of one query found, on one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ww_core.recall.fusion import Scores
from ww_core.stores.ports import SPARSE_NAMES, Hit


@dataclass(frozen=True, slots=True)
class Pool:
    """``ids`` in the order found; ``scores`` by signal, each float32 (n,) along ``ids``."""

    ids: tuple[str, ...]
    scores: Mapping[str, Scores]

    def take(self, rows: Sequence[int]) -> Pool:
        """The candidates of the rows, in that order."""
        index = np.asarray(rows, dtype=np.intp)
        return Pool(
            ids=tuple(self.ids[row] for row in rows),
            scores={name: values[index] for name, values in self.scores.items()},
        )

    def joined(self, ids: Sequence[str]) -> Pool:
        """With these candidates, too: until more is known they score like the worst, 0 where that is words."""
        more = list(dict.fromkeys((*self.ids, *ids)))[len(self.ids) :]
        scores = {}
        for name, values in self.scores.items():
            floor = 0.0 if name in SPARSE_NAMES or not values.size else float(values.min())
            scores[name] = np.concatenate([values, np.full(len(more), floor, np.float32)])
        return Pool(ids=(*self.ids, *more), scores=scores)

    def completed(self, asked: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[Hit]]) -> Pool:
        """The same candidates with the scores that were ``found`` of those ``asked`` about by signal; one without
        a score there scores like the worst (0 where that is words)."""
        rows = {episode_id: row for row, episode_id in enumerate(self.ids)}
        scores = dict(self.scores)
        for name, ids in asked.items():
            values = scores[name].copy() if name in scores else np.empty(len(self.ids), np.float32)
            values[[rows[episode_id] for episode_id in ids]] = np.nan
            values[[rows[hit.episode_id] for hit in found[name]]] = [hit.score for hit in found[name]]
            missing = np.isnan(values)
            known = values[~missing]
            values[missing] = 0.0 if name in SPARSE_NAMES or not known.size else known.min()
            scores[name] = values
        return Pool(ids=self.ids, scores=scores)


def gather(found: Mapping[str, Sequence[Hit]], *, limit: int) -> Pool:
    """One table from the hits of each signal, best first, of which at most ``limit`` were asked for.

    A candidate that a signal did not return scores no better there than the worst that it did return; where the signal
    returned all it has, the candidate has no such vector or shares no term: the worst for dense, 0 for sparse.
    """
    rows: dict[str, int] = {}
    for hits in found.values():
        for hit in hits:
            rows.setdefault(hit.episode_id, len(rows))
    scores: dict[str, Scores] = {}
    for name, hits in found.items():
        floor = hits[-1].score if hits else 0.0
        if name in SPARSE_NAMES and len(hits) < limit:
            floor = 0.0
        values = np.full(len(rows), floor, np.float32)
        values[[rows[hit.episode_id] for hit in hits]] = [hit.score for hit in hits]
        scores[name] = values
    return Pool(ids=tuple(rows), scores=scores)
