"""The whole path with the vectors on a real Qdrant server: by this process's own dispatcher, and by a worker."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.command_line import Cli
from tests.integration.topics import TOPICS
from tests.processes import RedisServer, Worker
from ww import errors
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.stores.servers.qdrant import QdrantVectorStore

TEXTS = [text for texts in TOPICS.values() for text in texts]
EVERYTHING = (
    "data directory",
    "graph store",
    "vector store",
    "model",
    "hooks",
    "accounting",
    "backlog",
    "dead letters",
)


@pytest.fixture(params=[True, False], ids=["grpc", "http"])
def qdrant(request: pytest.FixtureRequest) -> Iterator[dict[str, object]]:
    """Settings of a namespace on the server, which is removed afterwards, as is another of its name and a ``b``."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL is not set: no Qdrant server to test")
    settings = {"qdrant_url": url, "qdrant_grpc": request.param, "namespace": f"t{uuid4().hex[:12]}"}
    yield settings
    for namespace in (settings["namespace"], f"{settings['namespace']}b"):
        store = QdrantVectorStore(Settings(**{**settings, "namespace": namespace}))
        store.drop()
        store.close()


def environment(monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"T4DM_{name.upper()}", str(value))


async def test_from_text_to_clusters_and_out_of_the_world_again(
    qdrant: dict[str, object], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EpisodicMemory("notes", data_dir=cli.data_dir, **qdrant) as memory:
        assert len((await memory.store_batch(TEXTS)).accepted) == len(TEXTS)
        await memory.flush(timeout=120)
        run = await memory.consolidate()
        assert (run.status, len(await memory.clusters())) == ("done", 3)
        assert (await memory.consolidate()).considered == 0
        hits = await memory.recall("which host has no disk space", limit=3)
        assert {hit.content for hit in hits} <= set(TOPICS["disk"])
        await memory.rollback(run.run_id)
        assert await memory.clusters() == []
        assert (await memory.consolidate()).status == "done"

        first = hits[0]
        receipt = await memory.forget(first.episode_id)
        assert (receipt.episodes, receipt.vectors) == (1, 1)
        with pytest.raises(errors.NotFound):
            await memory.get(first.episode_id)
        assert first.episode_id not in [hit.episode_id for hit in await memory.recall(first.content, limit=100)]
        archived = hits[1].episode_id
        deployment = memory.core.deployment
        deployment.graph.archive([archived])
        assert (await memory.verify()).ok

    environment(monkeypatch, qdrant)
    assert cli("verify", "--repair")["ok"]
    found = {finding["name"]: finding for finding in cli("doctor")["checks"]}
    assert set(EVERYTHING) == found.keys()
    assert all(finding["ok"] for finding in found.values()), found
    assert "qdrant 1." in found["vector store"]["message"]
    assert "answers" in found["vector store"]["message"]
    assert cli("status")["stores"]["vectors"]["kind"] == "qdrant"
    figures = cli("metrics")
    assert figures["qdrant_queue_depth"] == 0
    store = QdrantVectorStore(Settings(**qdrant))
    told = store.info().get("queue_depth")
    store.close()
    assert ("qdrant_update_queue" in figures["gauges"]) == (told is not None)
    assert figures["gauges"].get("qdrant_update_queue", 0) >= 0

    lines = tmp_path / "out.jsonl"
    assert cli("export", "--vectors", str(lines))["exported"] == len(TEXTS) - 1
    assert all("vector" in json.loads(line) for line in lines.read_text("utf-8").splitlines())
    other = Cli(tmp_path / "other", cli.capsys)
    monkeypatch.setenv("T4DM_NAMESPACE", f"{qdrant['namespace']}b")
    assert other("import", str(lines))["accepted"] == len(TEXTS) - 1
    other("flush")
    assert other("verify")["ok"]

    async with EpisodicMemory("notes", data_dir=cli.data_dir, **qdrant) as memory:
        assert (await memory.forget(session_id="notes")).vectors == len(TEXTS) - 1
        assert memory.core.deployment.vectors.info()["points"] == 0
        assert (await memory.verify()).ok


async def test_a_worker_of_all_pools_embeds_and_clusters(
    qdrant: dict[str, object], redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    start_worker(
        data, "-Q", "ww,ww.embed,ww.query,ww.consolidate", **{f"T4DM_{k.upper()}": str(v) for k, v in qdrant.items()}
    )
    async with EpisodicMemory("notes", data_dir=data, redis_url=redis_server.url, **qdrant) as memory:
        assert len((await memory.store_batch(TEXTS)).accepted) == len(TEXTS)
        await memory.flush(timeout=120)
        assert (await memory.consolidate()).status == "done"
        assert len(await memory.clusters()) == 3
        assert (await memory.recall("a full disk", limit=1))[0].content in TOPICS["disk"]
        assert (await memory.verify()).ok
