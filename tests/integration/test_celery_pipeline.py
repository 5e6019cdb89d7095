"""Applications that do not have this package, over a real Redis, with real Celery workers."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

from redis.client import PubSub

from tests.processes import BOUND, RedisServer, Worker, run_python, until
from ww.memory.episodic import EpisodicMemory
from ww_core.deployment import Deployment
from ww_core.stores.ports import Queue

APPLICATION = """
import json, sys

class Nothing:  # the application does not have this package
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ww", "ww_core", "ww_workers"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
from celery import Celery

app = Celery(broker=sys.argv[1], backend=sys.argv[1])
topics = ["nightly backup failed", "coffee machine is broken", "holiday request approved"]
receipts = [
    app.send_task("ww.store", kwargs={"content": f"{topics[i % 3]} on day {i}", "session_id": "ops",
                  "timestamp": f"2024-05-{1 + i // 2:02d}T12:00:00+00:00", "outcome": "failure"}, queue="ww")
    for i in range(45)
]
out = {"receipts": [receipt.get(timeout=80) for receipt in receipts]}
try:
    app.send_task("ww.store", kwargs={"session_id": "ops"}, queue="ww").get(timeout=80)
except Exception as error:
    out["error"] = [type(error).__name__, str(error)]
import time
end = time.monotonic() + 80
while True:  # until everything is embedded
    dry = {"session_id": "ops", "dry_run": True}
    out["run"] = app.send_task("ww.consolidate", kwargs=dry, queue="ww").get(timeout=80)
    if out["run"]["considered"] == 45 or time.monotonic() > end:
        break
    app.backend.client.blpop("nobody", timeout=1)
result = app.send_task("ww.consolidate", kwargs={"session_id": "ops"}, queue="ww")
out["consolidated"], out["task_id"], out["state"] = result.get(timeout=80), result.id, result.state
out["verify"] = app.send_task("ww.verify", queue="ww").get(timeout=80)
out["vector"] = len(app.send_task("ww.embed_query", kwargs={"text": "backup"}, queue="ww.query").get(timeout=80))
assert not [name for name in sys.modules if name.split(".")[0] in ("ww", "ww_core", "ww_workers")]
print(json.dumps(out))
"""


def heard(events: PubSub) -> str:
    """What workers and beat told Flower so far."""
    told: list[str] = []
    while (message := events.get_message(timeout=0.1)) is not None:
        told.append(b64decode(json.loads(message["data"])["body"]).decode())
    return "\n".join(told)


def test_an_application_without_this_package_is_served(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    worker = start_worker(data)
    with redis_server.client() as client, client.pubsub(ignore_subscribe_messages=True) as events:
        events.psubscribe("*celeryev*")
        until(lambda: events.get_message(timeout=1) is None, what="the subscription is confirmed")
        out = json.loads(run_python(APPLICATION, redis_server.url, cwd=tmp_path, within=200))
        told = heard(events)
    assert "episode_id" in told
    assert "{session_id='ops', outcome='failure', content=<" in told
    assert "backup" not in told, "neither arguments nor results hold the text of an episode"
    assert [set(receipt) for receipt in out["receipts"]] == [{"episode_id", "state", "duplicate"}] * 45
    assert len({receipt["episode_id"] for receipt in out["receipts"]}) == 45
    assert out["error"][0] == "InvalidInput"
    assert "an item without content" in out["error"][1]
    assert out["run"]["status"] == "dry_run"
    run = out["consolidated"]
    keys = {
        "run_id",
        "session_id",
        "status",
        "considered",
        "sampled",
        "assigned",
        "noise",
        "folded",
        "clusters",
        "seconds",
    }
    assert keys <= set(run)
    assert (run["session_id"], run["status"], run["considered"]) == ("ops", "done", 45)
    assert {"cluster_id", "label", "size", "change"} <= set(run["clusters"][0])
    assert out["verify"]["ok"] is True
    assert out["vector"] == 384
    with redis_server.client() as client:
        assert client.llen("celery") == 0
    # an application with this package, on the same broker and directory
    with EpisodicMemory(session_id="ops", data_dir=data, redis_url=redis_server.url) as memory:
        assert memory.sync.recall("why did the backup fail").results[0].content.startswith("nightly backup failed")
        receipt = memory.sync.store("the deploy of api-7 failed: out of disk")
        memory.sync.flush(timeout=BOUND)
        assert memory.sync.get(receipt.episode_id).state == "embedded"
        again = memory.sync.consolidate("ops")
        assert (again.status, again.considered) == ("done", 1)
        assert memory.sync.consolidate("ops", dry_run=True).status == "dry_run"
        assert memory.sync.verify().ok
    assert worker.terminate() < 40


def test_a_burst_of_stores_costs_few_messages_and_an_outage_of_redis_none(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    start_worker(data, "-Q", "ww.embed,ww", "-c", "1")
    with EpisodicMemory(session_id="s", data_dir=data, redis_url=redis_server.url) as memory:

        def messages() -> int:
            with redis_server.client() as client:
                statistics = client.info("commandstats")
                return int(statistics.get("cmdstat_lpush", {"calls": 0})["calls"])

        before = messages()
        writers = [
            threading.Thread(target=lambda k=k: [memory.sync.store(f"{k} {i}") for i in range(500)]) for k in range(4)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        memory.sync.flush(timeout=2 * BOUND)
        assert memory.sync.counts().embedded == 2000
        assert messages() - before < 100
        redis_server.freeze()
        try:
            memory.sync.store("stored while Redis is frozen")
            assert memory.sync.counts().pending == 1
        finally:
            redis_server.thaw()
        memory.sync.flush(timeout=BOUND)
        with redis_server.client() as client:
            client.flushall()
        memory.sync.store("stored after Redis lost everything")
        memory.sync.flush(timeout=BOUND)
        counts = memory.sync.counts()
        assert (counts.embedded, counts.dead) == (2002, 0)
        assert memory.sync.verify().ok


def test_a_request_that_nobody_was_rung_for_is_found_by_the_sweep_without_beat(
    start_worker: Callable[..., Worker], redis_server: RedisServer, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with EpisodicMemory(session_id="s", data_dir=data) as memory:
        memory.sync.store_batch([f"text {i} about {i % 3}" for i in range(20)])
        memory.sync.flush(timeout=BOUND)
        graph = Deployment.of(memory.settings).graph
        run = graph.request_run("s")
    with redis_server.client() as client:
        assert not any(client.llen(queue.value) for queue in Queue)
    start_worker(data, "-c", "1")
    with EpisodicMemory(session_id="s", data_dir=data, redis_url=redis_server.url) as memory:
        until(lambda: memory.sync.runs("s")[0].status == "done", what="the run")
        assert memory.sync.runs("s")[0].run_id == run.run_id
