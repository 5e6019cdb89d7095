"""Each preset started for real, and what its switches do seen from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.contract.graphs import neo4j_settings
from tests.unit.maintenance.conftest import Bench
from ww.bench.corpus import fingerprint, made_up
from ww.bench.filled import SESSION, consolidate, fill, recaller
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.presets import PRESETS
from ww_core.recall.request import RecallRequest
from ww_core.stores.ports import Claim, Where
from ww_core.stores.servers.neo4j.connection import Server

STORED = 2100
"""More than the default cap of a run."""


@pytest.fixture(params=PRESETS)
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(Settings(data_dir=tmp_path / "data", preset=request.param, hierarchical_gap_sample=0))
    yield deployment
    deployment.close()


def test_a_preset_starts_and_routes_and_samples_as_it_says(started: Deployment) -> None:
    settings = started.settings
    corpus = made_up(STORED, 1)
    started.vectors.ensure(fingerprint(corpus.queries.shape[1]))
    fill(corpus, started)
    run = consolidate(started)
    assert run.sampled == min(STORED, settings.consolidation_max_samples)
    found = recaller(started, corpus.queries).recall(RecallRequest("topic 0", where=Where(sessions=(SESSION,))))
    assert len(found) > 0
    assert found.mode == ("hierarchical" if settings.hierarchical_search is True else "flat")


def test_a_presets_cache_holds_so_many_texts(started: Deployment) -> None:
    size = started.settings.embedding_cache_size
    for number in range(size + 50):
        started.embedding.seed(f"text {number}", np.zeros(1, np.float32))
    assert started.embedding.cache_stats()["size"] == size


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_claims_so_many_at_a_time(preset: str, quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(quick_path)
    bench.settings = Settings(data_dir=quick_path, preset=preset)
    bench.store("one text")
    asked: list[int] = []
    claim = bench.graph.claim

    def counted(limit: int, *, token: str, lease_seconds: float) -> list[Claim]:
        asked.append(limit)
        return claim(limit, token=token, lease_seconds=lease_seconds)

    monkeypatch.setattr(bench.graph, "claim", counted)
    assert bench.drain().run(max_seconds=30).embedded == 1
    assert set(asked) == {bench.settings.embedding_claim_size}
    bench.close()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_pool_is_that_large(preset: str, neo4j_server: tuple[str, str]) -> None:
    uri, password = neo4j_server
    server = Server(neo4j_settings(f"{uri} {password} preset", preset=preset))
    in_use = server.read(lambda tx: (tx.run("RETURN 1").consume(), server.utilisation)[1])
    assert in_use == pytest.approx(1 / {"small": 50, "medium": 50, "large": 100, "very-large": 200}[preset])
    server.close()
