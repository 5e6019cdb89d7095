"""That an encoder settles on its fastest path later, where no thread could be had at first."""

from __future__ import annotations

import threading

import pytest

from tests.processes import until
from ww_core.embedding.onnx_backend import OnnxBackend
from ww_core.embedding.runner import Runner


def settles_later(runner: Runner, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as ending:
        ending.setattr("threading.Thread.start", refuse)
        runner.settle_aside(model)
    assert runner.choice.path == OnnxBackend.name
    runner.settle_aside(model)
    until(lambda: runner.choice.speed, what="settling was possible later")


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")
