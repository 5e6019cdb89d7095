"""Giving a run's clusters their labels, examples and exemplars from the texts that were sampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np

from ww_core.consolidation.groups import Group, Groups
from ww_core.consolidation.labels import distinct, keyphrases, label
from ww_core.consolidation.sampling import EXEMPLARS_PER_CLUSTER, draw
from ww_core.hooks import Hooks
from ww_core.models import Cluster, Episode, Medoid, Vector
from ww_core.recall.speakers import ROLES, speakers_of

EXAMPLES = 8
"""Contents that a ``name_cluster`` hook is shown, the most typical first."""


class Namer:
    """Names the clusters of one run.

    ``members``: for each cluster the sampled episodes in it with their vectors (n, d).
    """

    def __init__(self, groups: Groups, members: Sequence[tuple[Sequence[Episode], Vector]], hooks: Hooks) -> None:
        self._groups = groups
        self._hooks = hooks
        self._typical = [self._most_typical(i, *pair) for i, pair in enumerate(members)]
        self._members = members

    def _most_typical(self, i: int, episodes: Sequence[Episode], vectors: Vector) -> list[Episode]:
        if not episodes:
            return []
        order = np.argsort(-(vectors @ self._groups.centroids[i]), kind="stable")
        return [episodes[row] for row in order]

    def name(self, step: Callable[[], None]) -> None:
        """Keyphrases and medoids for all clusters, labels for those that have none: a name once given stays.

        ``step`` is called between the clusters, and may raise.
        """
        alive = [i for i, group in enumerate(self._groups.items) if not group.gone and self._groups.tally.sizes[i] > 0]
        members = [self._members[i][0] for i in alive]
        speakers = {word for name in speakers_of(chain(*members)) for word in name.lower().split()} - ROLES
        phrases = keyphrases([[e.content for e in episodes] for episodes in members], speakers, step)
        for i, found in zip(alive, phrases, strict=True):
            group = self._groups.items[i]
            group.keyphrases = found or group.keyphrases
            if self._typical[i]:
                best = self._typical[i][0]
                group.medoid = Medoid(best.episode_id, best.content)
        taken = {group.label for group in self._groups.items if group.label and not group.gone}
        for i in sorted(alive, key=lambda i: (-int(self._groups.tally.sizes[i]), self._groups.items[i].cluster_id)):
            step()
            group = self._groups.items[i]
            if not group.label:
                group.label = self._better(i, label(group.keyphrases, taken), taken)
                taken.add(group.label)

    def _better(self, i: int, name: str, taken: set[str]) -> str:
        if not self._hooks.has("name_cluster"):
            return name
        group = self._groups.items[i]
        examples = tuple(e.content for e in self._typical[i][:EXAMPLES])
        shown = Cluster(
            cluster_id=group.cluster_id,
            session_id=self._groups.session_id,
            label=name,
            size=int(self._groups.tally.sizes[i]),
            keyphrases=group.keyphrases,
            medoid=group.medoid,
            change=group.change,
            parents=group.parents,
            radius=group.radius,
        )
        given = self._hooks.first("name_cluster", str, shown, examples)
        return distinct(given.strip(), taken) if given and given.strip() else name


def renew_exemplars(
    group: Group, old: Sequence[str], joined: Sequence[str], *, total: int, arrived: int, rng: np.random.Generator
) -> None:
    """Keep the exemplars a fair draw of the members: ``joined`` ids enter in proportion to how many came in.

    ``total`` members now, ``arrived`` of them since the exemplars were drawn.
    """
    limit = EXEMPLARS_PER_CLUSTER
    if len(old) + len(joined) <= limit:
        group.exemplars = (*old, *joined)
        return
    share = arrived / max(total, 1)
    fresh = min(len(joined), max(round(limit * share), limit - len(old)))
    group.exemplars = (*draw(old, limit - fresh, rng), *draw(joined, fresh, rng))
