"""Collections that were made when a centroid was a vector of its own open, answer, and let go of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from tests.contract.vector_stores import DIMENSION, MODEL, point, unit
from ww_core.config import Settings
from ww_core.stores import points as p
from ww_core.stores.embedded.vectors import EdgeVectorStore, engine
from ww_core.stores.ports import CONTENT, Centroid, Search
from ww_core.stores.servers.qdrant import QdrantVectorStore
from ww_core.stores.servers.qdrant import collection as qdrant_collection
from ww_core.stores.servers.qdrant import shapes as qdrant_shapes

CENTROID = Centroid("c1", "s", "old", unit(1), 0.1)
OLD_NAME = "centroid"


def old_payload() -> dict[str, Any]:
    return {key: value for key, value in p.centroid_payload(CENTROID).items() if key != p.CENTROID_VECTOR}


def old_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data directory with an episode and a centroid of the old layout."""
    with monkeypatch.context() as then:
        then.setattr(engine, "DENSE_NAMES", (*engine.DENSE_NAMES, OLD_NAME))
        store = EdgeVectorStore.open(directory, namespace="ww")
        store.ensure(MODEL)
        store.upsert([point("a")])
        store.close()
    (manifest,) = directory.rglob("collection.json")
    shard = edge.EdgeShard.load(str(manifest.parent / "shard-1"))
    row = edge.Point(p.centroid_id("ww", "s", "old", "c1"), {OLD_NAME: CENTROID.vector.tolist()}, old_payload())
    shard.update(edge.UpdateOperation.upsert_points([row]))
    shard.flush()
    shard.close()


def test_a_data_directory_of_the_old_layout_is_used_and_scrubbed(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_directory(quick_path, monkeypatch)
    store = EdgeVectorStore.open(quick_path, namespace="ww")
    store.ensure(MODEL)
    assert store.centroids("s", "old") == []
    assert store.walk_centroids() == ([], None)
    new = Centroid("c1", "s", "new", unit(1), 0.1)
    store.put_centroids([new])
    store.scrub()
    assert [c.cluster_id for c in store.centroids("s", "new")] == ["c1"]
    assert [hit.episode_id for hit in store.search([Search(CONTENT, unit(1.0))])[0]] == ["a"]
    store.close()


def test_a_scrub_leaves_vectors_behind_that_shards_no_longer_have(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_directory(quick_path, monkeypatch)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(engine, "outdated_centroids", lambda: engine.any_of(p.EPISODE, ["nobody's"]))
        store = EdgeVectorStore.open(quick_path, namespace="ww")
        assert store.centroids("s", "old") == []
    store.scrub()
    assert store.walk_centroids() == (["old"], None)
    assert store.count() == 1
    store.close()


def test_a_servers_old_collection_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(qdrant_collection, "connect", lambda settings: client)
    settings = Settings(qdrant_url=":memory:")
    name = qdrant_collection.name(settings.namespace, MODEL)
    with monkeypatch.context() as then:
        then.setattr(qdrant_shapes, "DENSE_NAMES", (*qdrant_shapes.DENSE_NAMES, OLD_NAME))
        qdrant_collection.create(client, settings, MODEL)
    assert client.get_collection(name).config.params.vectors[OLD_NAME].size == DIMENSION
    row_id = str(p.centroid_id(settings.namespace, "s", "old", "c1"))
    old = models.PointStruct(id=row_id, vector={OLD_NAME: CENTROID.vector.tolist()}, payload=old_payload())
    client.upsert(name, [old], wait=True)
    store = QdrantVectorStore(settings)
    assert store.centroids("s", "old") == [], "before anybody opened it for writing"
    store.ensure(MODEL)
    assert store.walk_centroids() == ([], None)
    store.upsert([point("a")])
    store.put_centroids([Centroid("c1", "s", "new", unit(1), 0.1)])
    assert [c.cluster_id for c in store.centroids("s", "new")] == ["c1"]
    store.close()
