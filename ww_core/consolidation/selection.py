"""What a run looks at: the new episodes of a session, and the sample of them and of known clusters that it clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ww_core.consolidation.duplicates import Texts
from ww_core.consolidation.groups import Groups
from ww_core.consolidation.sampling import EXEMPLARS_PER_CLUSTER, POOL, draw, share_out, split_budget, spread_over_time
from ww_core.models import Episode, Vector
from ww_core.stores.pages import memberships
from ww_core.stores.ports import GraphStore, Membership, ReadTexts, VectorStore, place_of

PAGE = 5000
"""Episodes or memberships read at a time."""


@dataclass(frozen=True, slots=True)
class New:
    """The episodes that no run has looked at, in session order: ids, and the digests of their texts."""

    ids: list[str]
    texts: Texts
    generations: NDArray[np.int64]
    """(n,) see Fresh."""
    single: NDArray[np.bool_]
    """(n,) whether each has one window."""

    def __len__(self) -> int:
        return len(self.ids)

    def read_texts(self, at_once: int) -> Iterator[ReadTexts]:
        """What was read of them, in the order of the digests, up to ``at_once`` episodes at a time."""
        order = np.lexsort((*self.texts.whole.view(">u8").astype(np.uint64).T[::-1], self.generations))
        _, begins = np.unique(self.generations[order], return_index=True)
        for low, end in pairwise([*begins.tolist(), len(order)]):
            for start in range(low, end, at_once):
                rows = order[start : min(start + at_once, end)]
                whole = self.texts.whole[rows].tobytes()
                yield ReadTexts([self.ids[row] for row in rows.tolist()], whole, int(self.generations[rows[0]]))


@dataclass(frozen=True, slots=True)
class Sample:
    """The n rows that are clustered, in session order."""

    episodes: tuple[Episode, ...]
    vectors: Vector
    """(n, d) unit rows."""
    core: NDArray[np.bool_]
    """(n,) the rows to be clustered, up to the cap; the others help to sharpen them."""
    known: NDArray[np.int32]
    """(n,) place of the known cluster each row belongs to, -1 for new and unclustered ones."""
    place: NDArray[np.int64]
    """(n,) which of the new episodes the row is, -1 for one that is not new."""
    weights: Vector
    """(n,) how many episodes the row stands for."""
    before: dict[str, Membership]
    """Memberships of rows that are not new, where they were read."""

    @property
    def new(self) -> NDArray[np.bool_]:
        """(n,) whether the row is new."""
        return self.place >= 0


def collect_new(graph: GraphStore, session_id: str, step: Callable[[], None]) -> New:
    """Read the session's new episodes page by page; ``step`` is called after each."""
    ids: list[str] = []
    texts: list[Texts] = []
    generations: list[NDArray[np.int64]] = []
    single: list[NDArray[np.bool_]] = []
    after = None
    while page := graph.unconsolidated(session_id, limit=PAGE, after=after):
        names, contents, _, _, of_page, windows = zip(*page, strict=True)
        ids += names
        texts.append(Texts.of(contents))
        generations.append(np.array(of_page))
        single.append(np.array(windows) == 1)
        after = place_of(page[-1])
        step()
        if len(page) < PAGE:
            break
    return New(
        ids,
        Texts.together(texts),
        np.concatenate([np.empty(0, np.int64), *generations]),
        np.concatenate([np.empty(0, np.bool_), *single]),
    )


class Selector:
    """Draws the sample of one run; ``cap`` rows are clustered and POOL times as many read."""

    def __init__(
        self, graph: GraphStore, vectors: VectorStore, new: New, groups: Groups, *, cap: int, rng: np.random.Generator
    ) -> None:
        self._graph = graph
        self._vectors = vectors
        self._new = new
        self._groups = groups
        self._cap = cap
        self._rng = rng

    def whole(self) -> Sample:
        """Everything there is in the session."""
        placed = memberships(self._graph, self._groups.session_id, size=PAGE)
        before = {m.episode_id: m for page in placed for m in page}
        return self._sample(range(len(self._new)), before, {})

    def drawn(self, leftovers: Sequence[str]) -> Sample:
        """New rows spread over time, exemplars of every cluster, and some of those that fitted nowhere."""
        new, groups, rng = self._new, self._groups, self._rng
        exemplars = [group.exemplars for group in groups.items]
        of_new, of_known = split_budget(len(new), sum(map(len, exemplars)) + len(leftovers), POOL * self._cap)
        counts = share_out([min(len(ids), EXEMPLARS_PER_CLUSTER) for ids in exemplars] + [len(leftovers)], of_known)
        before: dict[str, Membership] = {}
        weight: dict[str, float] = {}
        for i, (ids, count) in enumerate(zip(exemplars, counts, strict=False)):
            for episode_id in draw(ids, count, rng):
                name = groups.items[i].cluster_id
                before[episode_id] = Membership(episode_id, name, name, 0.0)
                weight[episode_id] = float(groups.tally.sizes[i]) / max(count, 1)
        for episode_id in draw(leftovers, counts[-1], rng):
            before.setdefault(episode_id, Membership(episode_id, None, None, 0.0))
        chosen = spread_over_time(len(new), of_new, rng).tolist()
        weight |= dict.fromkeys((new.ids[i] for i in chosen), len(new) / max(len(chosen), 1))
        return self._sample(chosen, before, weight)

    def _sample(self, chosen: Iterable[int], before: dict[str, Membership], weight: dict[str, float]) -> Sample:
        new = {self._new.ids[i]: i for i in chosen}
        found = self._graph.get([*before, *new])
        # An exemplar that was moved since, or a leftover that found its place, is not what it was drawn as.
        alive = [e for e in found.values() if e.episode_id in new or e.cluster_id == before[e.episode_id].cluster_id]
        alive.sort(key=lambda e: (e.timestamp, e.position, e.episode_id))
        stored = {s.episode_id: s.vector for s in self._vectors.vectors([e.episode_id for e in alive])}
        episodes = tuple(e for e in alive if e.episode_id in stored)
        rows = np.stack([stored[e.episode_id] for e in episodes]) if episodes else np.empty((0, 0))
        core = np.zeros(len(episodes), dtype=np.bool_)
        core[spread_over_time(len(episodes), self._cap, self._rng)] = True
        places = [-1 if e.episode_id in new else self._groups.index(e.cluster_id) for e in episodes]
        return Sample(
            episodes,
            rows.astype(np.float32),
            core,
            np.array(places, dtype=np.int32),
            np.array([new.get(e.episode_id, -1) for e in episodes], dtype=np.int64),
            np.array([weight.get(e.episode_id, 1.0) for e in episodes], dtype=np.float32),
            before,
        )
