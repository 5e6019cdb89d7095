"""Our image as a worker beside a Redis container of pytest-celery. Run by tests/integration/test_containers.py, in a
pytest of its own: that plugin's fixtures shadow those the other tests use."""

from __future__ import annotations

import pytest
from celery import Celery
from pytest_celery import CeleryTestContainer, RedisTestBroker
from pytest_docker_tools import build, container, fxtr

from tests.processes import ROOT

BUILD_SECONDS = 1800
START_SECONDS = 300


class WorkerContainer(CeleryTestContainer):
    """Ready when the worker says so."""

    @property
    def ready_prompt(self) -> str:
        return " ready."


@pytest.fixture
def worker_environment(celery_redis_broker: RedisTestBroker) -> dict[str, str]:
    return {"T4DM_REDIS_URL": celery_redis_broker.container.celeryconfig["url"], "REMAP_SIGTERM": "SIGQUIT"}


image = build(path=str(ROOT), dockerfile="compose/Dockerfile", tag="world-weaver:smoke", rm=True)
worker = container(
    image="{image.id}",
    command=["ww", "worker", "--pool", "all"],
    environment=fxtr("worker_environment"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=WorkerContainer,
    timeout=START_SECONDS,
)


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_image_stores_and_embeds_for_an_application(
    worker: WorkerContainer, celery_redis_broker: RedisTestBroker
) -> None:
    url = celery_redis_broker.container.celeryconfig["host_url"]
    with Celery(broker=url, backend=url, set_as_current=False) as app:
        kwargs = {"content": "the deploy of api-7 failed: out of disk", "session_id": "ops"}
        receipt = app.send_task("ww.store", kwargs=kwargs, queue="ww").get(timeout=START_SECONDS)
        assert receipt["duplicate"] is False
        vector = app.send_task("ww.embed_query", kwargs={"text": "deploy"}, queue="ww.query").get(timeout=START_SECONDS)
        assert len(vector) == 384
        assert app.send_task("ww.verify", queue="ww").get(timeout=START_SECONDS)["ok"] is True
