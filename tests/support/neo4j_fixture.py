"""The pytest fixture of a Neo4j server that is started once, and only when a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support import neo4j_server as server


@pytest.fixture(scope="session")
def neo4j_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URI and password: of ``NEO4J_URI`` and ``NEO4J_PASSWORD``, else of a server of this session's own."""
    if uri := os.environ.get("NEO4J_URI"):
        yield uri, os.environ.get("NEO4J_PASSWORD", "")
        return
    skip_without_neo4j()
    started = server.Neo4jServer(tmp_path_factory.mktemp("neo4j"))
    started.start()
    try:
        yield started.uri, started.password
    finally:
        started.kill()


def skip_without_neo4j() -> None:
    """Where no server can be started: skip with the reason, or fail in CI, where one has to be."""
    if (reason := server.missing()) is not None:
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)
