"""The encoder's paths are compared by a process that gives way to all others, so here nothing runs beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import until
from tests.support.settling import settles_later
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService, encoder
from ww_core.embedding.runner import ModelOptions, Runner
from ww_core.embedding.source import locate


@pytest.fixture(autouse=True)
def _own_cache_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_bulk_work_has_the_fastest_path_found_and_nobody_waits_for_it(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path, embedding_device="cpu", embedding_threads=1, embedding_model=str(tiny_model())
    )
    service = EmbeddingService(settings)
    service.encode([f"text {i}" for i in range(300)])
    before = service.describe().choice
    assert before is not None
    assert not before.speed
    service.embed_windows([f"text {i}" for i in range(300, 500)])
    service.embed_windows([f"text {i}" for i in range(500, 600)])
    choice = lambda: service.describe().choice  # noqa: E731
    until(lambda: (now := choice()) is not None and set(now.speed) >= {"onnx", "torch"}, what="the paths are compared")
    encoder.unload()


def test_where_no_thread_can_be_had_paths_are_compared_later(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = locate(str(tiny_model()))
    settles_later(Runner(source, ModelOptions(device="cpu", threads=1)), str(source.directory), monkeypatch)
