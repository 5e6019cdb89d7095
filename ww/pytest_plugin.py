"""The fixture ``ww_eager``: a memory for tests whose background work is done at once, without servers.

Loading this plugin imports nothing but pytest; the fixture imports the rest when a test asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ww.memory.episodic import EpisodicMemory


@pytest.fixture
def ww_eager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EpisodicMemory]:
    """An EpisodicMemory on a temporary directory; blocking under ``ww_eager.sync``.

    While the test runs, the functions of ``ww.memory``, ``delay`` and ``apply_async`` of our tasks, and
    ``send_task("ww.*")`` of any Celery app in the process use it and are done when they return: after ``store`` the
    episode is embedded, after ``consolidate`` there are clusters.
    """
    from ww.memory.default import use
    from ww.memory.episodic import EpisodicMemory
    from ww_core.deployment import Deployment
    from ww_workers.eager import eagerly

    directory = tmp_path_factory.mktemp("world-weaver")
    memory = EpisodicMemory(data_dir=directory, redis_url=None, qdrant_url=None, neo4j_uri=None)
    deployment = Deployment.of(memory.settings).acquire()
    try:
        with eagerly(deployment), use(memory):
            yield memory
            memory.close()
    finally:
        if deployment.release():
            deployment.close()
