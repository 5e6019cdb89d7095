"""A real worker serves the figures of the deployment, and checks its alerts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from tests.processes import RedisServer, Worker, until
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.observability.watch import alert_watch
from ww_core.stores.ports import Queue
from ww_workers.producer import send
from ww_workers.system import free_port


def test_a_worker_with_children_serves_one_page_for_the_deployment(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    port = free_port(0)
    settings = Settings(data_dir=tmp_path / "memory", redis_url=redis_server.url)
    deployment = Deployment(settings)
    deployment.ingest.store("waits for somebody to embed it")
    worker = start_worker(tmp_path / "memory", "-Q", "ww", "-c", "2", T4DM_METRICS_PORT=str(port))

    def page() -> str:
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                return str(answer.read().decode())
        except URLError:
            return ""

    until(lambda: 'world_weaver_episodes{state="pending"} 1.0' in page(), what="the backlog is on the page")
    assert 'world_weaver_queue_length{queue="ww.embed"}' in page()
    assert "world_weaver_recall_latency_p95" not in page(), "nobody recalled anything"
    send(settings, "ww.alerts", Queue.MAINTAIN)
    watch = alert_watch(deployment)
    until(lambda: not watch.due(), what="the worker checked the alerts")
    worker.kill()
    assert free_port(port) == port, "nobody holds the port when the worker is gone"
    deployment.close()
