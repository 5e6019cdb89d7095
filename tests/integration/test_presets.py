"""Each preset started for real, and what its switches do seen from outside."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.contract.graphs import neo4j_settings
from tests.contract.vector_stores import MODEL
from tests.integration.test_qdrant_settings import Listener
from tests.integration.topics import TOPICS
from tests.processes import RedisServer, Worker, until
from tests.unit.maintenance.conftest import Bench
from ww.bench.corpus import fingerprint, made_up
from ww.bench.filled import SESSION, START, consolidate, embedded, fill, recaller
from ww.bench.spread import unit
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.consolidation import pipeline
from ww_core.consolidation.sampling import POOL
from ww_core.consolidation.service import Consolidator
from ww_core.deployment import Deployment
from ww_core.errors import StoreUnavailable
from ww_core.hooks import Hooks
from ww_core.models import Episode, Vector
from ww_core.observability.metrics import Metrics
from ww_core.presets import PRESETS
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Claim, Hit, Search, StoredVectors, VectorStore, Where
from ww_core.stores.servers.neo4j.connection import Server
from ww_core.stores.servers.qdrant import QdrantVectorStore

STORED = 2100
MANY = 10_300
"""More than any preset reads at a time, or clusters in a run."""
SAMPLED = 50

OBSERVED: set[str] = set()
"""The settings whose effect under each preset some test here sees."""
Test = TypeVar("Test")


def observes(*keys: str) -> Callable[[Test], Test]:
    """Marks a test that sees from outside what these settings do."""
    OBSERVED.update(keys)
    return lambda test: test


def test_no_preset_switches_what_nobody_observes() -> None:
    assert {switch.key for switches in PRESETS.values() for switch in switches} == OBSERVED


class Watched:
    """A vector store that writes down what it is asked for."""

    def __init__(self, store: VectorStore) -> None:
        self._store = store
        self.searches: list[Search] = []
        self.read: list[int] = []
        """Vectors asked for at a time."""

    def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        self.searches += searches
        return self._store.search(searches)

    def vectors(self, episode_ids: Sequence[str], *, single: bool = False) -> StoredVectors:
        self.read.append(len(episode_ids))
        return self._store.vectors(episode_ids, single=single)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def topics(count: int) -> list[Episode]:
    return [
        Episode(f"topic {i % 23} item {i}", episode_id=f"e{i}", session_id=SESSION, timestamp=START + timedelta(0, i))
        for i in range(count)
    ]


@pytest.fixture(params=PRESETS)
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(Settings(data_dir=tmp_path / "data", preset=request.param, hierarchical_gap_sample=0))
    yield deployment
    deployment.close()


@observes("hierarchical_search", "cluster_selection_k")
def test_a_preset_starts_and_routes_as_it_says(started: Deployment) -> None:
    settings = started.settings
    corpus = made_up(STORED, 1)
    started.vectors.ensure(fingerprint(corpus.queries.shape[1]))
    fill(corpus, started)
    run = consolidate(started)
    watched = Watched(started.vectors)
    recall = recaller(started, corpus.queries, None, None, cast(VectorStore, watched))
    found = recall.recall(RecallRequest("topic 0", where=Where(sessions=(SESSION,))))
    assert len(found) > 0
    routed = settings.hierarchical_search is True
    assert found.mode == ("hierarchical" if routed else "flat")
    assert len(run.clusters) > settings.cluster_selection_k
    cells = {len(search.where.cells) for search in watched.searches if search.where.cells}
    assert cells == ({settings.cluster_selection_k} if routed else set())


@observes("embedding_cache_size")
def test_a_presets_cache_holds_so_many_texts(started: Deployment) -> None:
    size = started.settings.embedding_cache_size
    for number in range(size + 50):
        started.embedding.seed(f"text {number}", np.zeros(1, np.float32))
    assert started.embedding.cache_stats()["size"] == size


@observes("embedding_claim_size")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_claims_so_many_at_a_time(preset: str, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(quick_path)
    bench.settings = Settings(data_dir=quick_path, preset=preset)
    bench.store("one text")
    asked: list[int] = []
    claim = bench.graph.claim

    def counted(limit: int, *, token: str, lease_seconds: float) -> list[Claim]:
        asked.append(limit)
        return claim(limit, token=token, lease_seconds=lease_seconds)

    monkeypatch.setattr(bench.graph, "claim", counted)
    assert bench.drain().run(max_seconds=30).embedded == 1
    assert set(asked) == {bench.settings.embedding_claim_size}
    bench.close()


@pytest.fixture(scope="module")
def unclustered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Many short vectors that no run has seen."""
    deployment = Deployment(Settings(data_dir=tmp_path_factory.mktemp("many")))
    rows: Vector = unit(np.random.default_rng(2).standard_normal((MANY, 16)))
    deployment.vectors.ensure(fingerprint(16))
    embedded(deployment.graph, deployment.vectors, None, topics(MANY), rows)
    yield deployment
    deployment.close()


@observes("consolidation_batch_size")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_run_assigns_so_many_at_a_time(preset: str, unclustered: Deployment) -> None:
    settings = Settings(data_dir=unclustered.settings.data_dir, preset=preset, consolidation_max_samples=SAMPLED)
    watched = Watched(unclustered.vectors)
    consolidator = Consolidator(unclustered.graph, cast(VectorStore, watched), settings, Hooks(), Metrics())
    assert consolidator.preview(SESSION).considered == MANY
    most = settings.consolidation_batch_size
    assert most - POOL * SAMPLED <= max(watched.read) <= most, "a batch, without those of it that were sampled"


class Drawn(Exception):
    """The sample is drawn: what comes after it costs much and says nothing of its size."""


@observes("consolidation_max_samples")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_run_clusters_so_many(preset: str, unclustered: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    clustered: list[int] = []

    def cluster(vectors: Vector, *, core: NDArray[np.bool_], **_: object) -> None:
        clustered.append(int(core.sum()))
        raise Drawn

    monkeypatch.setattr(pipeline, "cluster", cluster)
    settings = Settings(data_dir=unclustered.settings.data_dir, preset=preset)
    consolidator = Consolidator(unclustered.graph, unclustered.vectors, settings, Hooks(), Metrics())
    with pytest.raises(Drawn):
        consolidator.preview(SESSION)
    assert clustered == [{"small": 2000, "medium": 2000, "large": 5000, "very-large": 10_000}[preset]]


@observes("embedding_mode")
@pytest.mark.parametrize("broker", [False, True], ids=["alone", "with a broker"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_embeds_queries_where_it_says(
    preset: str, broker: bool, redis_server: RedisServer, quick_path: Path
) -> None:
    servers = {"redis_url": redis_server.url} if broker else {}
    with EpisodicMemory(session_id="s", data_dir=quick_path, preset=preset, **servers) as memory:
        memory.sync.store("the deploy of api-7 failed: out of disk")
        answer = memory.sync.recall("deploy failed")
        asks_others = memory.settings.embedding_mode == "remote"
        assert asks_others is (broker and preset in ("large", "very-large"))
        assert answer.mode == ("bm25" if asks_others else "flat"), "no worker answers here"


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.close()


@observes("qdrant_pool_size")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_connections_to_qdrant_are_that_many(preset: str, listener: Listener) -> None:
    listener.hold = threading.Event()
    settings = Settings(qdrant_url=listener.url, qdrant_grpc=False, preset=preset)
    store, most = QdrantVectorStore(settings), settings.qdrant_pool_size
    assert most == {"small": 10, "medium": 10, "large": 20, "very-large": 40}[preset]

    def ask() -> None:
        with suppress(StoreUnavailable):  # what becomes of the answers, all at once, is not looked at here
            store.ping()

    threads = [threading.Thread(target=ask) for _ in range(most + 5)]
    for thread in threads:
        thread.start()
    until(lambda: len(listener.requests) >= most, what="the pool is in use")
    threading.Event().wait(0.2)  # time in which one more request would have come
    assert len(listener.requests) == most
    listener.hold.set()
    for thread in threads:
        thread.join()
    store.close()


@observes("qdrant_timeout")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_qdrant_so_many_seconds(preset: str, listener: Listener) -> None:
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False, preset=preset))
    store.ensure(MODEL)
    store.close()
    (asked,) = {query for path, query in listener.asked if path.endswith(MODEL.digest()) and query}
    assert asked == f"timeout={60 if preset == 'very-large' else 30}"


@observes("neo4j_pool_size")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_pool_is_that_large(preset: str, neo4j_server: tuple[str, str]) -> None:
    uri, password = neo4j_server
    server = Server(neo4j_settings(f"{uri} {password} preset", preset=preset))
    in_use = server.read(lambda tx: (tx.run("RETURN 1").consume(), server.utilisation)[1])
    assert in_use == pytest.approx(1 / {"small": 50, "medium": 50, "large": 100, "very-large": 200}[preset])
    server.close()


@pytest.fixture
def qdrant_url() -> str:
    """Comes first, so that no other server is started in vain."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL is not set: no Qdrant server to start a large deployment with")
    return url


@pytest.mark.parametrize("preset", ["large", "very-large"])
def test_a_large_preset_works_with_all_its_servers(
    preset: str,
    qdrant_url: str,
    neo4j_server: tuple[str, str],
    redis_server: RedisServer,
    start_worker: Callable[..., Worker],
    tmp_path: Path,
) -> None:
    """The record on Neo4j, the vectors on Qdrant, a worker behind Redis that embeds and consolidates."""
    uri, password = neo4j_server
    given = {"preset": preset, "namespace": f"t{uuid4().hex[:12]}", "qdrant_url": qdrant_url}
    given |= {"neo4j_uri": uri, "neo4j_password": password}
    queues = ("-c", "2", "-Q", "ww,ww.embed,ww.query,ww.consolidate")
    start_worker(tmp_path / "worker", *queues, **{f"T4DM_{key.upper()}": value for key, value in given.items()})
    with EpisodicMemory("notes", data_dir=tmp_path / "data", redis_url=redis_server.url, **given) as memory:
        sources = memory.settings.sources()
        assert {sources[switch.key] for switch in PRESETS[preset]} == {f"preset {preset}"}
        vectors = memory.core.deployment.vectors
        try:
            texts = [text for each in TOPICS.values() for text in each]
            assert len(memory.sync.store_batch(texts).accepted) == len(texts)
            memory.sync.flush(timeout=120)
            assert memory.sync.consolidate().status == "done"
            assert len(memory.sync.clusters()) == len(TOPICS)
            until(lambda: memory.sync.recall("a first query").mode != "bm25", within=100, what="the pool has the model")
            found = memory.sync.recall("which host has no disk space", limit=3)
            assert found.mode == "hierarchical", "the worker embedded the query, and the clusters are used"
            assert {hit.content for hit in found} <= set(TOPICS["disk"])
            assert memory.sync.verify().ok
            assert memory.sync.forget(session_id="notes").episodes == len(texts)
        finally:
            cast(QdrantVectorStore, vectors).drop()
