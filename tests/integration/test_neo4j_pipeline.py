"""The whole path with the graph on a real Neo4j server: store, embed, cluster, find, forget, verify."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from neo4j import GraphDatabase

from tests.integration.test_erasure_bytes import CONTENT, CONTEXT, in_files
from tests.integration.topics import TOPICS
from tests.processes import RedisServer, Worker, until
from ww import errors
from ww.memory.episodic import EpisodicMemory
from ww_core.models import State

PROPERTIES = """MATCH (n) WHERE n.ns = $ns RETURN properties(n) AS properties
UNION ALL MATCH (n)-[r]->() WHERE n.ns = $ns RETURN properties(r) AS properties"""
"""All there is of a deployment."""


async def test_from_text_to_clusters_and_out_of_the_world_again(neo4j_server: tuple[str, str], tmp_path: Path) -> None:
    uri, password = neo4j_server
    first = datetime(2026, 1, 1, tzinfo=UTC)
    texts = [(topic, text) for topic, texts in TOPICS.items() for text in texts]
    items = [
        {"content": text, "session_id": "notes", "timestamp": first + timedelta(minutes=i), "context": {"topic": topic}}
        for i, (topic, text) in enumerate(texts)
    ]
    namespace = f"t{uuid4().hex[:12]}"
    async with EpisodicMemory(
        data_dir=tmp_path / "data", neo4j_uri=uri, neo4j_password=password, namespace=namespace
    ) as memory:
        assert len((await memory.store_batch(items)).accepted) == len(items)
        await memory.flush(timeout=120)
        assert (await memory.counts()).embedded == len(items)

        run = await memory.consolidate("notes")
        assert run.status == "done"
        assert len(await memory.clusters("notes")) >= 2
        assert (await memory.consolidate("notes")).considered == 0
        hits = await memory.recall("which host has no disk space", session_id="notes", limit=3)
        assert [hit.context["topic"] for hit in hits] == ["disk"] * 3

        listed = [episode async for episode in memory.list("notes")]
        assert [episode.content for episode in listed] == [text for _, text in texts]
        assert all(episode.state is State.EMBEDDED for episode in listed)
        assert (await memory.verify()).ok
        gone = listed[0].episode_id
        receipt = await memory.forget(gone)
        assert (receipt.episodes, receipt.vectors) == (1, 1)
        with pytest.raises(errors.NotFound):
            await memory.get(gone)
        assert gone not in [hit.episode_id for hit in await memory.recall(listed[0].content, limit=100)]
        assert (await memory.verify()).ok
        assert (await memory.forget(session_id="notes")).episodes == len(items) - 1
        with GraphDatabase.driver(uri, auth=("neo4j", password)) as driver:
            found = driver.execute_query(PROPERTIES, ns=namespace).records
        assert len(found) > len(items)
        left = [row.data() for row in found if "notes" in str(row["properties"])]
        assert left == [], "neither a query nor a property knows the session's name"
        assert (await memory.verify()).ok
    assert not list((tmp_path / "data").glob("*.sqlite3"))


async def test_a_marker_is_in_no_property_after_forget_nor_after_a_rollback(
    neo4j_server: tuple[str, str], tmp_path: Path
) -> None:
    uri, password = neo4j_server
    namespace = f"t{uuid4().hex[:12]}"

    def properties() -> str:
        with GraphDatabase.driver(uri, auth=("neo4j", password)) as driver:
            return str([row.data() for row in driver.execute_query(PROPERTIES, ns=namespace).records]).lower()

    def found() -> list[str]:
        known, files = properties(), in_files(tmp_path)
        return [mark for mark in (CONTENT, CONTEXT) if mark in known or files[mark.encode()]]

    settings = {"consolidation_min_cluster_size": 3, "consolidation_min_samples": 1, "recall_weight_late": 1.0}
    async with EpisodicMemory(
        "s", data_dir=tmp_path, neo4j_uri=uri, neo4j_password=password, namespace=namespace, **settings
    ) as memory:
        texts = [f"{CONTENT} broke, {CONTENT} was mended, {CONTENT} broke {i}" for i in range(8)]
        texts += [f"the soup of day {i} was tomato with basil" for i in range(12)]
        batch = await memory.store_batch([{"content": t, "context": {"place": f"{CONTEXT}-{t[:4]}"}} for t in texts])
        await memory.flush(timeout=120)
        await memory.consolidate("s")
        more = await memory.store_batch([f"{CONTENT} once more, number {i}" for i in range(4)])
        await memory.flush(timeout=120)
        second = await memory.consolidate("s")
        assert CONTENT in " ".join(c.label for c in await memory.clusters("s")).lower(), "the label is made of it"
        assert found() == [CONTENT, CONTEXT], "it is there to be found"
        for receipt in (*batch.accepted, *more.accepted):
            await memory.forget(receipt.episode_id)
        until(lambda: found() == [], what=f"gone: {in_files(tmp_path)} {found()}")
        await memory.rollback(second.run_id)
        assert found() == []
        assert not any(CONTENT in cluster.label.lower() for cluster in await memory.clusters("s"))
        assert (await memory.verify()).ok


async def test_a_celery_worker_embeds_what_waits_on_neo4j(
    neo4j_server: tuple[str, str], redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    uri, password = neo4j_server
    namespace = f"t{uuid4().hex[:12]}"
    data = tmp_path / "data"
    start_worker(data, T4DM_NEO4J_URI=uri, T4DM_NEO4J_PASSWORD=password, T4DM_NAMESPACE=namespace)
    settings = {"redis_url": redis_server.url, "neo4j_uri": uri, "neo4j_password": password, "namespace": namespace}
    async with EpisodicMemory("notes", data_dir=data, **settings) as memory:
        texts = [text for group in TOPICS.values() for text in group]
        assert len((await memory.store_batch(texts)).accepted) == len(texts)
        await memory.flush(timeout=120)
        assert (await memory.counts()).embedded == len(texts)
        assert (await memory.verify()).ok
        assert "api-7" in (await memory.recall("a full disk", limit=1))[0].content
