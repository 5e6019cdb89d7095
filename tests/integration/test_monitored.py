"""After real work every series that compose/monitoring asks for is on the page that a worker serves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.topics import TOPICS
from tests.processes import RedisServer, Worker, until
from tests.unit.observability.test_monitoring import queries
from ww import hooks
from ww.memory.episodic import EpisodicMemory
from ww_core.errors import StoreUnavailable
from ww_core.hooks import process_hooks
from ww_core.observability import process_metrics
from ww_core.observability.prometheus import PREFIX
from ww_workers.system import free_port

ABSENT = {
    "neo4j_pool_util": "is measured where Neo4j is the graph store",
    'window_count{counter="neo4j_pool_util"}': "the same",
    "qdrant_update_queue": "is told by a Qdrant server",
    'window_count{counter="recall.without_model"}': "counts recalls of processes without a model that get no answer",
}
"""Series that this deployment, on embedded stores and with nobody away, does not have."""
SECONDS = 120.0
"""For figures to get there: three processes load a model, and each publishes every few seconds."""

Series = tuple[str, str, str]
"""Name, label and its value; both empty where there is no label."""


@pytest.fixture
def only_own_figures() -> Iterator[None]:
    process_metrics().reset()
    yield
    process_hooks().clear()
    process_metrics().reset()


def asked() -> dict[str, re.Pattern[str]]:
    """Each series that rules and panels name, without the prefix, and what fits it as ``name{label="value"}``."""
    found = {}
    for query in queries():
        for name, label, sign, value in re.findall(rf'{PREFIX}(\w+)(?:\{{(\w+)(=~?)"([^"]*)"\}})?', query):
            pattern = f"(?:{value})" if sign == "=~" else re.escape(value)
            shown = f'{name}{{{label}{sign}"{value}"}}' if label else name
            found[shown] = re.compile(
                rf'{name}\{{{label}="{pattern}"\}}' if label else rf"{name}(\{{.*\}})?", re.DOTALL
            )
    return found


def on_page(port: int) -> set[str]:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
    except URLError:
        return set()
    return {
        sample.name.removeprefix(PREFIX) + "".join(f'{{{label}="{value}"}}' for label, value in sample.labels.items())
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def work(memory: EpisodicMemory, patch: pytest.MonkeyPatch) -> None:
    """Recall, consolidate, recall by clusters, and fail once."""
    memory.sync.flush(timeout=SECONDS)
    for _ in range(2):
        memory.sync.recall("who drinks green tea")
    run = memory.sync.consolidate()
    assert (run.status, len(memory.sync.clusters())) == ("done", 3)
    for query in ("is there space left on the disk", "when does the train leave"):
        memory.sync.recall(query, mode="hierarchical")

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    with patch.context() as broken:
        broken.setattr(memory.core.deployment.graph, "add", away)
        with pytest.raises(StoreUnavailable):
            memory.sync.store("this one is refused")


def test_every_series_of_rules_and_panels_is_there_after_real_work(
    redis_server: RedisServer,
    start_worker: Callable[..., Worker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    only_own_figures: None,
) -> None:
    data, port = tmp_path / "memory", free_port(0)
    wanted = asked()
    assert len(wanted) > 25
    assert set(ABSENT) <= set(wanted)
    seen: set[str] = set()

    def missing() -> set[str]:
        seen.update(on_page(port))
        return {name for name, fits in wanted.items() if not any(fits.fullmatch(one) for one in seen)}

    hooks.before_store(lambda episode: episode)
    start_worker(data, "-Q", "ww", "-c", "1", T4DM_METRICS_PORT=str(port))
    with EpisodicMemory(session_id="s", data_dir=data, redis_url=redis_server.url, hierarchical_gap_sample=1) as memory:
        for texts in TOPICS.values():
            for text in texts:
                memory.sync.store(text)
        until(lambda: "oldest_pending_seconds" not in missing(), within=SECONDS, every=0.5, what="a backlog is shown")
        start_worker(data, "-Q", "ww.embed,ww.query,ww.consolidate", "-c", "1")
        work(memory, monkeypatch)
        with suppress(AssertionError):  # what is missing is said below
            until(lambda: missing() <= set(ABSENT), within=60, every=1)
    assert missing() == set(ABSENT), "what is there after all needs no excuse"
