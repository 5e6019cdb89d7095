"""Three real nodes of Qdrant, every shard twice: one is killed while points are written and read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contract.vector_stores import point, unit
from tests.processes import until
from tests.support.qdrant_server import QdrantServer
from ww_core.config import Settings
from ww_core.stores.ports import CONTENT, Centroid, Fingerprint, Search, Where
from ww_core.stores.servers.qdrant import QdrantVectorStore

SESSIONS = 9


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[QdrantServer]]:
    with ExitStack() as ends:
        first = QdrantServer(tmp_path / "node1", cluster=True)
        servers = [first, *(QdrantServer(tmp_path / f"node{i}", joins=first) for i in (2, 3))]
        for server in servers:
            ends.callback(server.kill)
            server.start()
        yield servers


def _active(server: QdrantServer, collection: str) -> bool:
    found: dict[str, Any] = server.get(f"/collections/{collection}/cluster")
    shards = [*found["local_shards"], *found["remote_shards"]]
    return len(shards) == 6 and all(shard["state"] == "Active" for shard in shards)


@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_a_node_that_is_killed_takes_nothing_with_it(nodes: list[QdrantServer], grpc: bool) -> None:
    shape = {"qdrant_session_sharding": True, "qdrant_shard_number": 3, "qdrant_replication_factor": 2}
    settings = Settings(**nodes[0].settings, **shape, qdrant_grpc=grpc, qdrant_timeout=5)  # type: ignore[arg-type]
    store = QdrantVectorStore(settings)

    def write(start: int, end: int) -> None:
        store.upsert([point(f"e{i}", session=f"s{i % SESSIONS}") for i in range(start, end)])

    def whole(end: int) -> bool:
        return len(store.generations([f"e{i}" for i in range(end)])) == end == store.count()

    store.ensure(Fingerprint("test", "1", len(unit(1)), "mean", True))
    collection = httpx.get(f"{nodes[0].url}/collections").json()["result"]["collections"][0]["name"]
    write(0, 90)
    nodes[2].kill()
    write(90, 180)
    store.put_centroids([Centroid(f"c{i}", f"s{i}", f"r{i % 2}", unit(1), 0.1) for i in range(SESSIONS)])
    assert whole(180)
    (hits,) = store.search([Search(CONTENT, unit(1), Where(sessions=("s4",)), limit=50)])
    assert len(hits) == 20
    assert store.delete(["e0", "e1"]) == 2
    store.upsert([point("e0", session="s0"), point("e1", session="s1")])
    nodes[2].start()
    until(lambda: _active(nodes[0], collection), what="the node has caught up")
    nodes[1].kill()  # what was written while the other was away is on one node only, or on both
    assert whole(180)
    store.drop_attempts(["r0"])
    assert set(store.walk_centroids()[0]) == {"r1"}
    store.close()
