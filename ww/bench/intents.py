"""Does a query find its own kind: short questions by intent, documentation by module, in the top ten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from ww.bench import data
from ww.bench.figure import DENSE_ONLY, NO_PARTS, Bench, Figure, skipped
from ww.memory.episodic import EpisodicMemory
from ww_core.ids import new_id
from ww_core.models import Episode

K = 10
SEED = 7
EMBED_SECONDS = 1200.0
UNIT = "share of the top ten"
PEERS = {
    "dense alone": DENSE_ONLY,
    "BM25 alone": {**NO_PARTS, "recall_weight_bm25": 1},
}


def run(bench: Bench) -> list[Figure]:
    """Texts are stored in shuffled order, each asked for is not counted as its own answer."""
    figures: list[Figure] = []
    sets: tuple[tuple[str, str, Callable[[], data.Labelled]], ...] = (
        ("banking77", data.BANKING, data.banking),
        ("clinc150", data.CLINC, data.clinc),
        ("documentation", "", _documentation),
    )
    for name, file, load in sets:
        if file and (why := data.absent(file)):
            figures += [skipped(_figure_name(name, peer), UNIT, why, 1.0, judged="ratio") for peer in PEERS]
            continue
        figures += _of(name, load(), bench)
    return figures


def _documentation() -> data.Labelled:
    """The demo's paragraphs by their module."""
    from ww.cli import demo_text

    found = demo_text.episodes()
    return data.Labelled(tuple(e.content for e in found), tuple(str(e.context["module"]) for e in found))


def _of(name: str, labelled: data.Labelled, bench: Bench) -> list[Figure]:
    rng = np.random.default_rng(SEED)
    size = len(labelled.texts) if bench.scale.full else 5 * bench.scale.encoded
    order = rng.permutation(len(labelled.texts))[:size]
    episodes = [Episode(labelled.texts[i], episode_id=new_id(), session_id=name) for i in order]
    label = {episode.episode_id: labelled.labels[i] for episode, i in zip(episodes, order, strict=True)}
    many = Counter(label.values())
    asked = [e for e in episodes if many[label[e.episode_id]] > 1][: bench.scale.queries]
    memories = [EpisodicMemory(settings=bench.place(name, recall_strengthens=False))]
    memories += [EpisodicMemory(settings=bench.place(name, recall_strengthens=False, **w)) for w in PEERS.values()]
    try:
        memories[0].sync.store_batch(episodes)
        bench.say(f"  {name}: embedding {len(episodes):,} texts")
        memories[0].sync.flush(timeout=EMBED_SECONDS)
        ours, *peers = (_share(memory, asked, label, many) for memory in memories)
    finally:
        for memory in memories:
            memory.close()
    note = f"{len(asked)} queries among {len(episodes):,} texts of {len(many)} kinds"
    return [
        Figure(
            *(_figure_name(name, peer), ours, UNIT, 1.0, value, peer, "ratio"),
            note=note,
            unjudged=bench.scale.at_full(),
        )
        for peer, value in zip(PEERS, peers, strict=True)
    ]


def _figure_name(name: str, peer: str) -> str:
    return f"search_{name}_against_{peer.split()[0].lower()}"


def _share(memory: EpisodicMemory, asked: list[Episode], label: dict[str, str], many: Counter[str]) -> float:
    """Mean share of the top ten that is of the query's kind, as far as there are so many."""
    shares = []
    for episode in asked:
        own = label[episode.episode_id]
        found = memory.sync.recall(episode.content, session_id=episode.session_id, limit=K + 1)
        others = [r.episode_id for r in found if r.episode_id != episode.episode_id][:K]
        shares.append(sum(label[other] == own for other in others) / min(K, many[own] - 1))
    return float(np.mean(shares))
