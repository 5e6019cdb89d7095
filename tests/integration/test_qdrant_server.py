"""A Qdrant server of the test's own: outages, keys, and what the settings make of a collection there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.vector_stores import MODEL, OTHER_MODEL, point, words
from tests.processes import free_ports, until
from tests.support.qdrant_server import QdrantServer
from ww import errors
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.ports import BM25, CONTENT, Search, Where
from ww_core.stores.servers.qdrant import QdrantVectorStore

PATIENCE = 2.0
"""``qdrant_timeout`` of these tests."""
BOUND = 15.0
"""Seconds in which a call has failed, with the patience above, on a busy machine."""
STORE_SECONDS = 2.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[QdrantServer]:
    started = QdrantServer(tmp_path / "qdrant")
    started.start()
    yield started
    started.kill()


@contextmanager
def opened(server: QdrantServer, **changes: object) -> Iterator[QdrantVectorStore]:
    store = QdrantVectorStore(Settings(**{**server.settings, **changes}))
    try:
        yield store
    finally:
        store.close()


@contextmanager
def killed(server: QdrantServer) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def frozen(server: QdrantServer) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "http"])
@pytest.mark.parametrize("fault", [killed, frozen])
async def test_an_outage_stops_recall_alone_and_ends_without_a_restart(
    fault: Callable[[QdrantServer], AbstractContextManager[None]], grpc: bool, server: QdrantServer, tmp_path: Path
) -> None:
    settings = {**server.settings, "qdrant_grpc": grpc, "qdrant_timeout": PATIENCE, "task_max_attempts": 2}
    async with EpisodicMemory("s", data_dir=tmp_path / "data", **settings) as memory:
        await memory.store("the disk of api-7 is full")
        await memory.flush(timeout=60)
        with fault(server):
            for number in range(20):
                started = time.monotonic()
                await memory.store(f"while it is away {number}")
                assert time.monotonic() - started < STORE_SECONDS
            for _ in range(2):
                started = time.monotonic()
                with pytest.raises(errors.StoreUnavailable, match="Qdrant at 127") as caught:
                    await memory.recall("a full disk")
                assert time.monotonic() - started < BOUND
                assert "\n" not in str(caught.value)
            with pytest.raises(errors.FlushTimeout):
                await memory.flush(timeout=5)
            counts = await memory.counts()
            assert (counts.embedded, counts.dead) == (1, 0)
        await memory.flush(timeout=90)
        counts = await memory.counts()
        assert (counts.embedded, counts.dead) == (21, 0)
        assert "disk" in (await memory.recall("a full disk", limit=1))[0].content
        assert (await memory.verify()).ok


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "http"])
def test_a_wrong_key_is_said_without_showing_it(grpc: bool, tmp_path: Path) -> None:
    server = QdrantServer(tmp_path / "qdrant", api_key="sesame")
    server.start()
    try:
        with opened(server, qdrant_grpc=grpc) as store:
            store.ensure(MODEL)
            assert store.count() == 0
        for wrong in ("not-this-one", None):
            with opened(server, qdrant_grpc=grpc, qdrant_api_key=wrong) as store:
                for call in (store.ping, store.count, lambda store=store: store.ensure(MODEL)):
                    with pytest.raises(ConfigurationError, match="refuses the API key") as caught:
                        call()
                    assert "not-this-one" not in str(caught.value)
    finally:
        server.kill()


@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "http"])
def test_a_port_where_nobody_or_somebody_else_listens_is_one_line(server: QdrantServer, grpc: bool) -> None:
    (free,) = free_ports(1)
    swapped = {"qdrant_url": f"http://127.0.0.1:{server.grpc_port}", "qdrant_grpc_port": server.port}
    for wrong in ({"qdrant_url": f"http://127.0.0.1:{free}", "qdrant_grpc_port": free}, swapped):
        with opened(server, qdrant_grpc=grpc, qdrant_timeout=PATIENCE, **wrong) as store:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable, match="Qdrant at 127") as caught:
                store.ping()
            assert time.monotonic() - started < BOUND
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "http"])
def test_another_models_collection_is_refused_by_name(server: QdrantServer, grpc: bool) -> None:
    with opened(server, qdrant_grpc=grpc) as store:
        store.ensure(MODEL)
        with pytest.raises(ConfigurationError, match=r"first-model.*second-model"):
            store.ensure(OTHER_MODEL)


# -- settings


def described(server: QdrantServer) -> dict[str, Any]:
    return server.get(f"/collections/ww_{MODEL.digest()}")


def test_the_defaults_there(server: QdrantServer) -> None:
    with opened(server) as store:
        store.ensure(MODEL)
    found = described(server)
    params = found["config"]["params"]
    assert (params["shard_number"], params["replication_factor"], params["write_consistency_factor"]) == (1, 1, 1)
    assert found["config"].get("quantization_config") is None
    assert not params["vectors"]["content"].get("on_disk")
    assert params["sparse_vectors"]["bm25"]["modifier"] == "idf"
    schema = found["payload_schema"]
    assert schema["session"]["params"]["is_tenant"] is True
    types = {name: field["data_type"] for name, field in schema.items()}
    assert types["timestamp"] == "datetime"
    assert types["generation"] == "integer"
    assert {types[name] for name in ("outcome", "terms", "cells", "state", "episode")} == {"keyword"}


@pytest.mark.parametrize("kind", ["scalar", "binary"])
def test_a_layout_there(server: QdrantServer, kind: str) -> None:
    layout = {"qdrant_shard_number": 3, "qdrant_replication_factor": 2, "qdrant_write_consistency": 2}
    with opened(server, **layout, qdrant_on_disk=True, qdrant_quantization=kind) as store:
        store.ensure(MODEL)
        store.upsert([point("a", session="x"), point("b", session="y")])
        (hits,) = store.search([Search(CONTENT, point("a").dense[CONTENT], Where(sessions=("x",)))])
        assert [hit.episode_id for hit in hits] == ["a"]
    config = described(server)["config"]
    params = config["params"]
    assert (params["shard_number"], params["replication_factor"], params["write_consistency_factor"]) == (3, 2, 2)
    assert params["vectors"]["content"]["on_disk"] is True
    assert list(config["quantization_config"]) == [kind]


@pytest.mark.parametrize("grpc", [True, False], ids=["grpc", "http"])
def test_sessions_in_shards_of_their_own(tmp_path: Path, grpc: bool) -> None:
    server = QdrantServer(tmp_path / "qdrant", cluster=True)
    server.start()
    try:
        with opened(server, qdrant_grpc=grpc, qdrant_session_sharding=True, qdrant_shard_number=3) as store:
            store.ensure(MODEL)
            store.ensure(MODEL)
            points = [point(f"{session}-{n}", session=session) for session in "abcdefgh" for n in range(3)]
            store.upsert(points)
            for session in "abcdefgh":
                (hits,) = store.search([Search(CONTENT, points[0].dense[CONTENT], Where(sessions=(session,)))])
                assert {hit.episode_id for hit in hits} == {f"{session}-{n}" for n in range(3)}
            assert store.count() == len(points)
            assert store.delete([f"a-{n}" for n in range(3)]) == 3
            assert store.count() == len(points) - 3
        shards = server.get(f"/collections/ww_{MODEL.digest()}/cluster")["local_shards"]
        assert isinstance(shards, list)
        assert {shard["shard_key"] for shard in shards} == {f"sessions-{n}" for n in range(3)}
        assert sum(shard["points_count"] for shard in shards) == len(points) - 3
        assert sum(shard["points_count"] > 0 for shard in shards) > 1
    finally:
        server.kill()


def test_session_sharding_without_a_cluster_is_said(server: QdrantServer) -> None:
    with (
        opened(server, qdrant_session_sharding=True) as store,
        pytest.raises(ConfigurationError, match="cluster mode"),
    ):
        store.ensure(MODEL)
    assert server.get("/collections")["collections"] == [], "nothing half-made stays behind"


def test_what_was_deleted_stops_counting_when_the_optimiser_has_run(server: QdrantServer) -> None:
    total, left = 4000, 400
    with opened(server) as store:
        store.ensure(MODEL)
        store.upsert([point(f"e{n}", bm25=words(t1=1.0)) for n in range(total)])
        store.delete([f"e{n}" for n in range(left, total)])

        def score() -> float:
            (hits,) = store.search([Search(BM25, words(t1=1.0), limit=1)])
            return hits[0].score

        expected = math.log(0.5 / (left + 0.5) + 1)
        until(
            lambda: score() == pytest.approx(expected, rel=1e-3), what="the inverse document frequency of what is left"
        )
        assert store.count() == left
