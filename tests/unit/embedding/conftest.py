"""One loaded model for all tests of the encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ww_core.config import Settings
from ww_core.embedding import EmbeddingService


@pytest.fixture(autouse=True)
def _own_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"), embedding_device="cpu", embedding_threads=1)


@pytest.fixture
def service(settings: Settings) -> EmbeddingService:
    """A service of its own (an empty cache) on the one model that stays loaded."""
    return EmbeddingService(settings)
