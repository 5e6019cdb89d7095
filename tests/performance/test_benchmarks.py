"""Recall next to its peers in the same run: an exact scan with numpy, and the evidence in a real conversation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from ww import Settings
from ww.bench import data, locomo
from ww.bench.corpus import Corpus, made_up
from ww.bench.figure import DENSE_ONLY, SCALES, Bench, wall
from ww.bench.filled import SESSION, consolidate, filled, recaller
from ww.bench.searching import SELECTED, K, agreement, ask, scanned_shares
from ww.memory.episodic import EpisodicMemory
from ww_core.deployment import Deployment
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Where

SIZES = (SCALES["quick"].searched // 8, SCALES["quick"].searched)
"""10 000 episodes, as `ww bench` has by default, and an eighth."""
MOST_GROWTH = 2.5
"""How much longer a recall may take among eight times as many episodes: 1.5 to 1.8 times here, 6 where it
scores every one."""
LEAST_RECALL = 0.95
MOST_SCANNED = 0.25
QUERIES, FEW = 40, 5
ROUNDS = 4

Memory: TypeAlias = tuple[Corpus, Deployment]


@pytest.fixture(scope="module")
def memories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Memory]]:
    """A filled deployment of each size."""
    directory = tmp_path_factory.mktemp("benchmark")
    bench = Bench(directory, SCALES["tiny"], Settings(data_dir=directory))
    with ExitStack() as ends:
        corpora = {size: made_up(size, QUERIES) for size in SIZES}
        yield {size: (corpus, ends.enter_context(filled(corpus, bench, str(size)))) for size, corpus in corpora.items()}


def answers(one: Callable[[int], list[str]]) -> list[list[str]]:
    return [one(i) for i in range(QUERIES)]


def test_recall_finds_what_an_exact_scan_finds(memories: dict[int, Memory]) -> None:
    for size, (corpus, deployment) in memories.items():
        found = answers(ask(recaller(deployment, corpus.queries, **DENSE_ONLY), corpus, "flat"))
        reached = agreement(found, corpus.exact(K))
        print(f"recall@{K} against exact at {size:,}: {reached:.3f}")
        assert reached >= LEAST_RECALL


def test_recall_does_not_grow_with_the_memory(memories: dict[int, Memory]) -> None:
    assert growth(memories, QUERIES, ROUNDS) < MOST_GROWTH


def test_a_recall_that_scores_every_episode_is_seen(memories: dict[int, Memory]) -> None:
    assert growth(memories, FEW, 1, every=True) > MOST_GROWTH


def growth(memories: dict[int, Memory], queries: int, rounds: int, *, every: bool = False) -> float:
    """How much longer a recall takes among the more episodes than among the fewer; ``every``: one that scores them all.

    The best of several rounds of each query, the sizes turn by turn: what else runs meanwhile slows both.
    """
    asks = {}
    for size, (corpus, deployment) in memories.items():
        changes = {"recall_candidates": size} if every else {}
        asks[size] = ask(recaller(deployment, corpus.queries, **changes), corpus, "flat")
    best = {size: np.full(queries, np.inf) for size in asks}
    for _ in range(rounds):
        for query in range(queries):
            for size, one in asks.items():
                best[size][query] = min(best[size][query], wall(one, query))
    times = {size: 1000 * float(np.median(walls)) for size, walls in best.items()}
    print({f"{size:,}": f"{ms:.1f} ms" for size, ms in times.items()})
    return times[SIZES[1]] / times[SIZES[0]]


def test_recall_by_clusters_agrees_with_an_exact_scan_and_scans_little(memories: dict[int, Memory]) -> None:
    corpus, deployment = memories[SIZES[1]]
    run = consolidate(deployment)
    by_clusters = recaller(deployment, corpus.queries, cluster_selection_k=SELECTED, **DENSE_ONLY)
    reached = agreement(answers(ask(by_clusters, corpus, "hierarchical")), corpus.exact(K))
    scanned = float(np.mean(scanned_shares(corpus, deployment)))
    print(f"K = {len(run.clusters)}, scanned {scanned:.1%}, recall@{K} {reached:.3f}")
    request = RecallRequest(corpus.asked[0], where=Where(sessions=(SESSION,)), mode="hierarchical")
    assert by_clusters.recall(request).mode == "hierarchical"
    assert reached >= LEAST_RECALL
    assert 0 < scanned < MOST_SCANNED


async def test_recall_of_evidence_in_a_conversation(tmp_path: Path) -> None:
    if why := data.absent(locomo.FILE):
        pytest.skip(why)
    conversation = min(locomo.load(data.folder() / locomo.FILE), key=lambda c: len(c.episodes))
    async with EpisodicMemory(data_dir=tmp_path, session_id=conversation.name) as memory:
        await memory.store_batch(conversation.episodes)
        await memory.flush(timeout=120)
        deadline = time.monotonic() + 120
        scores: list[list[float]] = []
        while time.monotonic() < deadline and not _reached(scores):
            scores = []
            for question in conversation.questions:
                found = [result.episode_id for result in await memory.recall(question.text, limit=10)]
                scores.append([locomo.evidence_recall(found, question, k) for k in (5, 10)])
    at5, at10 = np.mean(scores, axis=0)
    print(f"{conversation.name}: evidence recall@5 {at5:.3f}, @10 {at10:.3f} ({len(scores)} questions)")
    assert _reached(scores)


def _reached(scores: list[list[float]]) -> bool:
    return bool(scores) and bool((np.mean(scores, axis=0) >= (0.70, 0.79)).all())
