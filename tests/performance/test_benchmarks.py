"""Recall next to its peers in the same run: an exact scan with numpy, dense vectors alone, words alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.integration.recalling import DIMENSION, NOON, Shelf, open_shelf
from ww import Settings
from ww.bench import data, locomo
from ww.memory.episodic import EpisodicMemory
from ww_core.models import Episode, Vector
from ww_core.recall.request import RecallRequest
from ww_core.recall.service import Recaller
from ww_core.stores.ports import BM25, BM25_CONTEXT, CONTENT, CONTEXT, Centroid, Point, Where

TOPICS = 40
SIZES = (2_000, 16_000)
MOST_GROWTH = 3.0
"""How much slower a recall may be among eight times as many episodes; an exact scan takes eight times as long."""
LEAST_RECALL = 0.95
MOST_SCANNED = 0.25
QUERIES = 40
K = 10


class Spread:
    """Episodes around ``TOPICS`` random directions, as a clustered memory has them."""

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(7)
        self.topics = _unit(rng.standard_normal((TOPICS, DIMENSION)))
        self.topic = rng.integers(0, TOPICS, size)
        self.matrix = _unit(self.topics[self.topic] + 0.6 * rng.standard_normal((size, DIMENSION)) / DIMENSION**0.5)
        near = self.topics[rng.integers(0, TOPICS, QUERIES)]
        self.queries = _unit(near + 0.6 * rng.standard_normal((QUERIES, DIMENSION)) / DIMENSION**0.5)
        self.ids = [f"e{i}" for i in range(size)]

    def exact(self, query: Vector) -> list[str]:
        """The true nearest by a scan over everything."""
        similarity = self.matrix @ query
        best = np.argpartition(-similarity, K)[:K]
        return [self.ids[i] for i in best[np.argsort(-similarity[best])]]

    def fill(self, shelf: Shelf, session: str) -> None:
        """Store and embed under a session of their own."""
        self.ids = [f"{session}-{i}" for i in range(len(self.ids))]
        episodes = [
            Episode(
                f"subject{self.topic[i]} item{i}", episode_id=e, session_id=session, timestamp=NOON + timedelta(hours=i)
            )
            for i, e in enumerate(self.ids)
        ]
        rows = {episode_id: row for row, episode_id in enumerate(self.ids)}
        shelf.graph.add(episodes)
        while claims := shelf.graph.claim(4_000, token="t", lease_seconds=600):
            shelf.vectors.upsert(
                [
                    Point(
                        episode_id=c.episode.episode_id,
                        window=0,
                        windows=1,
                        generation=c.generation,
                        session_id=session,
                        timestamp=c.episode.timestamp or NOON,
                        dense=dict.fromkeys((CONTENT, CONTEXT), self.matrix[rows[c.episode.episode_id]]),
                        sparse=dict.fromkeys((BM25, BM25_CONTEXT), shelf.sparse.document(c.episode.content)),
                    )
                    for c in claims
                ]
            )
            shelf.graph.mark_embedded("t", {c.episode.episode_id: 1 for c in claims})


def _unit(rows: np.ndarray) -> Vector:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class ByNumber:
    """Query texts are row numbers of the prepared queries: what is measured is recall, not the model."""

    def __init__(self, queries: Vector) -> None:
        self._queries = queries

    def encode_query(self, text: str) -> Vector:
        row: Vector = self._queries[int(text.split()[-1])]
        return row

    def encode(self, texts: Sequence[str]) -> Vector:
        return np.stack([self.encode_query(text) for text in texts])


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shelf, dict[int, Spread]]]:
    shelf = open_shelf(tmp_path_factory.mktemp("benchmark"))
    spreads = {size: Spread(size) for size in SIZES}
    for size, spread in spreads.items():
        spread.fill(shelf, f"n{size}")
    yield shelf, spreads
    shelf.vectors.close()
    shelf.graph.close()


def recaller(shelf: Shelf, spread: Spread, **settings: object) -> Recaller:
    made = Recaller(
        shelf.graph,
        shelf.vectors,
        ByNumber(spread.queries),
        Settings(**settings),  # type: ignore[arg-type]
        shelf.hooks,
        shelf.metrics,
        chance=lambda: 1.0,
    )
    return made


def answers(recall: Callable[[RecallRequest], Sequence[object]], session: str, mode: str) -> list[list[str]]:
    requests = [
        RecallRequest(f"subject{i} {i}", where=Where(sessions=(session,)), limit=K, mode=mode)  # type: ignore[arg-type]
        for i in range(QUERIES)
    ]
    return [[result.episode_id for result in recall(request)] for request in requests]  # type: ignore[attr-defined]


def median_ms(call: Callable[[int], object]) -> float:
    spent = []
    for i in range(QUERIES):
        started = time.perf_counter()
        call(i)
        spent.append(time.perf_counter() - started)
    return float(np.median(spent)) * 1000


def agreement(found: list[list[str]], true: list[list[str]]) -> float:
    return float(np.mean([len(set(f) & set(t)) / len(t) for f, t in zip(found, true, strict=True)]))


DENSE_ONLY = {f"recall_weight_{part}": 0 for part in ("context", "bm25_context", "neighbours", "importance", "recency")}


def test_recall_finds_what_an_exact_scan_finds(memory: tuple[Shelf, dict[int, Spread]]) -> None:
    shelf, spreads = memory
    for size, spread in spreads.items():
        found = answers(recaller(shelf, spread, **DENSE_ONLY).recall, f"n{size}", "flat")
        reached = agreement(found, [spread.exact(query) for query in spread.queries])
        print(f"recall@{K} against exact at {size:,}: {reached:.3f}")
        assert reached >= LEAST_RECALL


def test_recall_does_not_grow_with_the_memory(memory: tuple[Shelf, dict[int, Spread]]) -> None:
    shelf, spreads = memory
    times = {}
    for size, spread in spreads.items():
        recall = recaller(shelf, spread).recall
        requests = [RecallRequest(f"subject{i} {i}", where=Where(sessions=(f"n{size}",))) for i in range(QUERIES)]
        recall(requests[0])
        times[size] = median_ms(lambda i, recall=recall, requests=requests: recall(requests[i]))  # type: ignore[misc]
    print({f"{size:,}": f"{ms:.1f} ms" for size, ms in times.items()})
    assert times[SIZES[1]] / times[SIZES[0]] < MOST_GROWTH


def test_recall_by_clusters_agrees_with_an_exact_scan_and_scans_little(
    memory: tuple[Shelf, dict[int, Spread]],
) -> None:
    shelf, spreads = memory
    size, session = SIZES[1], f"n{SIZES[1]}"
    spread = spreads[size]
    groups = {f"t{t}": [spread.ids[i] for i in np.flatnonzero(spread.topic == t)] for t in range(TOPICS)}
    run_id = shelf.cluster(session, groups)
    made = recaller(shelf, spread, cluster_selection_k=3, **DENSE_ONLY)
    found = answers(made.recall, session, "hierarchical")
    reached = agreement(found, [spread.exact(query) for query in spread.queries])
    scanned = float(
        np.mean([_share_scanned(shelf.vectors.centroids(session, run_id), groups, q) for q in spread.queries])
    )
    print(f"K = {TOPICS}, scanned {scanned:.1%}, recall@{K} {reached:.3f}")
    assert made.recall(RecallRequest("subject0 0", where=Where(sessions=(session,)), mode="hierarchical")).mode == (
        "hierarchical"
    )
    assert reached >= LEAST_RECALL
    assert scanned < MOST_SCANNED


def _share_scanned(centroids: list[Centroid], groups: dict[str, list[str]], query: Vector) -> float:
    nearest = sorted(centroids, key=lambda c: -float(c.vector @ query))[:3]
    return sum(len(groups[c.cluster_id]) for c in nearest) / sum(len(ids) for ids in groups.values())


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
