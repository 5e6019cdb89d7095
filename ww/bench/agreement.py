"""How good clusters are: agreement with true labels, whatever the cap and however the data arrives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from ww.bench import data
from ww.bench.clustering import hdbscan_default, hdbscan_of_sklearn, umap_and_hdbscan, with_the_rest
from ww.bench.corpus import fingerprint
from ww.bench.figure import Bench, Figure, skipped
from ww.bench.filled import SESSION, START, consolidate, embedded
from ww.memory.episodic import EpisodicMemory
from ww_core.deployment import Deployment
from ww_core.models import Episode, Vector

TARGETS, AIMS = {"banking77": 0.57, "clinc150": 0.72}, {"banking77": 0.60, "clinc150": 0.75}
"""Least adjusted Rand index over all texts, the rest at its nearest cluster; and what would be good to reach."""
EVERYTHING = 100_000
"""A cap that admits all."""
LOST = 0.03
"""Most agreement that the default cap, or arrival in tenths, may cost."""
KEPT = 0.9
"""Least share of the clusters that persist from one run to the next and keep their id."""
TENTHS = 10
TIMES_LEFT_OUT = 2.0
"""How much more often queries out of scope should be left unclustered than the others, at least."""
PEERS: Mapping[str, Callable[[Vector], NDArray[np.int64]]] = {
    "hdbscan, default path": hdbscan_default,
    "scikit-learn's HDBSCAN": hdbscan_of_sklearn,
    "UMAP + HDBSCAN": umap_and_hdbscan,
}


def run(bench: Bench) -> Iterator[Figure]:
    """Each set is stored, embedded and consolidated by the public API with default settings but the cap."""
    why = "" if bench.scale.name != "tiny" else "at --scale quick and full only"
    if why := why or data.absent(data.BANKING) or data.absent(data.CLINC):
        yield from (skipped(f"{name}_ari", "ARI", f"{why}; {_aim(name)}", TARGETS[name]) for name in TARGETS)
        return
    for name, labelled in (("banking77", data.banking()), ("clinc150", data.clinc())):
        bench.say(f"{name}: embedding {len(labelled.texts):,} texts")
        yield from _agreement(bench, name, labelled)
    whole = data.clinc(whole=True)
    bench.say(f"clinc150 with queries out of scope: embedding {len(whole.texts):,} texts")
    with _memory(bench, "whole", whole, EVERYTHING) as memory:
        memory.sync.consolidate(SESSION)
        left_out = np.array([e.cluster_id is None for e in _listed(memory)])
    outside = np.array(whole.labels) == data.OUT_OF_SCOPE
    yield Figure("clinc150_left_out", float(left_out[outside].mean()), "share", TIMES_LEFT_OUT,
                 float(left_out[~outside].mean()), "of those in scope", judged="ratio",
                 note=f"{outside.sum():,} queries out of scope")  # fmt: skip


def _aim(name: str) -> str:
    return f"aim {AIMS[name]:.2f}"


def _agreement(bench: Bench, name: str, labelled: data.Labelled) -> Iterator[Figure]:
    truth = np.array(labelled.labels)
    with _memory(bench, name, labelled, EVERYTHING) as memory:
        done = memory.sync.consolidate(SESSION)
        own = _ari(truth, [e.nearest for e in _listed(memory)])
        memory.sync.rollback(done.run_id)
        rows = np.stack([s.vector for s in memory.core.deployment.vectors.vectors(_ids(labelled))])
    for peer, find in PEERS.items():
        bench.say(f"{name}: {peer}")
        note = f"{len(truth):,} texts, {_aim(name)}" if peer.startswith("hdbscan") else ""
        end = "" if note else "_against_" + ("umap" if "UMAP" in peer else "sklearn")
        theirs = _ari(truth, with_the_rest(rows, find(rows)))
        yield Figure(f"{name}_ari{end}", own, "ARI", math.nan if end else TARGETS[name], theirs, peer, note=note)
    with EpisodicMemory(settings=bench.place(name), session_id=SESSION) as memory:
        memory.sync.consolidate(SESSION)
        capped = _ari(truth, [e.nearest for e in _listed(memory)])
    yield Figure(f"{name}_lost_by_cap", own - capped, "ARI", LOST, low_is_good=True,
                 note=f"{capped:.3f} with the default cap")  # fmt: skip
    yield from _arrival(bench, name, labelled, rows, capped)


def _arrival(bench: Bench, name: str, labelled: data.Labelled, rows: Vector, once: float) -> Iterator[Figure]:
    """Ten runs while the texts arrive in ten random parts, with the vectors that are known by now."""
    truth, ids = np.array(labelled.labels), np.array(_ids(labelled))
    deployment = Deployment(bench.place(f"{name}-arriving"))
    deployment.vectors.ensure(fingerprint(rows.shape[1]))
    persisting = kept = 0
    before: dict[str, set[str]] = {}
    for number, part in enumerate(np.array_split(np.random.default_rng(3).permutation(len(truth)), TENTHS)):
        bench.say(f"{name}: part {number + 1} of {TENTHS}")
        episodes = [
            Episode(labelled.texts[i], str(ids[i]), SESSION, START + timedelta(days=number, seconds=k))
            for k, i in enumerate(part.tolist())
        ]
        embedded(deployment.graph, deployment.vectors, deployment.sparse, episodes, rows[part])
        consolidate(deployment)
        found = deployment.graph.get(ids.tolist())
        now: dict[str, set[str]] = {}
        for episode in found.values():
            if episode.cluster_id is not None:
                now.setdefault(episode.cluster_id, set()).add(episode.episode_id)
        lasted, same = persistence(before, now)
        persisting, kept, before = persisting + lasted, kept + same, now
    deployment.close()
    final = _ari(truth, [found[name].nearest for name in ids.tolist()])
    yield Figure(f"{name}_ids_kept", kept / max(persisting, 1), "share", KEPT,
                 note=f"of {persisting} clusters that lasted from one of {TENTHS} runs to the next")  # fmt: skip
    yield Figure(f"{name}_lost_by_arrival", once - final, "ARI", LOST, low_is_good=True,
                 note=f"{final:.3f} after {TENTHS} runs, {once:.3f} in one")  # fmt: skip


def persistence(before: Mapping[str, set[str]], now: Mapping[str, set[str]]) -> tuple[int, int]:
    """How many clusters have more than half of their members together still, and how many of those kept their id."""
    lasted = same = 0
    for cluster_id, members in before.items():
        home = max(now, key=lambda c: len(now[c] & members))
        if 2 * len(now[home] & members) > len(members):
            lasted += 1
            same += home == cluster_id
    return lasted, same


def _memory(bench: Bench, name: str, labelled: data.Labelled, cap: int) -> EpisodicMemory:
    """With the texts in it, embedded."""
    memory = EpisodicMemory(settings=bench.place(name, consolidation_max_samples=cap), session_id=SESSION)
    memory.sync.store_batch(
        [{"content": text, "episode_id": i} for text, i in zip(labelled.texts, _ids(labelled), strict=True)]
    )
    memory.sync.flush(timeout=3600)
    return memory


def _ids(labelled: data.Labelled) -> list[str]:
    return [f"q{i:05d}" for i in range(len(labelled.texts))]


def _listed(memory: EpisodicMemory) -> list[Episode]:
    """All of the session in the order of their numbers."""
    return sorted(memory.sync.list(session_id=SESSION), key=lambda e: e.episode_id)


def _ari(truth: NDArray[np.str_], found: Sequence[str | None] | NDArray[np.int64]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(truth, np.array(found, dtype=str)))
