"""The encoder's paths are compared by a process that gives way to all others, so nothing may run beside this."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.processes import until
from tests.support.settling import refuse
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService, encoder
from ww_core.embedding.onnx_backend import OnnxBackend
from ww_core.embedding.paths import Choice

pytestmark = pytest.mark.alone


def test_bulk_work_has_the_fastest_path_found_once_a_thread_can_be_had_and_nobody_waits_for_it(
    tiny_model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = Settings(
        data_dir=tmp_path, embedding_device="cpu", embedding_threads=1, embedding_model=str(tiny_model())
    )
    service = EmbeddingService(settings)

    def choice() -> Choice:
        found = service.describe().choice
        assert found is not None
        return found

    with monkeypatch.context() as ending:
        ending.setattr("threading.Thread.start", refuse)
        service.encode([f"text {i}" for i in range(300)])
        service.embed_windows([f"text {i}" for i in range(300, 500)])
    assert (choice().path, choice().speed) == (OnnxBackend.name, {})
    service.embed_windows([f"text {i}" for i in range(500, 600)])
    assert not choice().speed, "the work did not wait"
    until(lambda: set(choice().speed) >= {"onnx", "torch"}, what="the paths are compared")
    encoder.unload()
