"""The fast path is found by measuring, remembered, and replaced by the reference whenever it fails."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from tests.support.clock import Clock
from ww_core.embedding.encoder import TextEncoder
from ww_core.embedding.errors import EncodingFailed, OutOfMemory
from ww_core.embedding.onnx_backend import OnnxBackend
from ww_core.embedding.paths import SAMPLES, Choice, Memory, compare
from ww_core.embedding.runner import ModelOptions, Runner
from ww_core.embedding.source import locate
from ww_core.embedding.tokens import Batch
from ww_core.errors import ConfigurationError, ModelUnavailable
from ww_core.models import Vector

CPU = ModelOptions(device="cpu", threads=1)
TEXTS = ["hello world", "a", "", "the deploy failed: out of disk", "Zürich, 42.50 EUR " * 4]


def path(clock: Clock, seconds: float, turn: float = 0.0) -> Callable[[Sequence[str]], Vector]:
    """A path that takes ``seconds`` and whose vectors are turned by ``turn`` radians from the reference's."""

    def embed(texts: Sequence[str]) -> Vector:
        clock.now += seconds
        return np.tile(np.array([np.cos(turn), np.sin(turn)], dtype=np.float32), (len(texts), 1))

    return embed


def test_the_fastest_path_that_agrees_is_chosen() -> None:
    clock = Clock()
    paths = {"torch": path(clock, 1.0), "onnx": path(clock, 0.5), "torch-bf16": path(clock, 0.1, turn=0.1)}
    choice = compare(paths, clock=clock)
    assert choice.path == "onnx"
    assert choice.speed["onnx"] / choice.speed["torch"] == pytest.approx(2.0)
    assert set(choice.speed) == {"torch", "onnx"}
    assert choice.cosine["torch-bf16"] == pytest.approx(np.cos(0.1))


def test_a_tie_leaves_the_path_in_use() -> None:
    clock = Clock()
    paths = {"torch": path(clock, 1.0), "onnx": path(clock, 1.05)}
    assert compare(paths, preferred="onnx", clock=clock).path == "onnx"
    paths["onnx"] = path(clock, 1.5)
    assert compare(paths, preferred="onnx", clock=clock).path == "torch"


def test_what_a_path_takes_to_warm_up_does_not_count() -> None:
    clock, first = Clock(), []

    def cold(texts: Sequence[str]) -> Vector:
        clock.now += 0.0 if first else 60.0  # more than a comparison may take
        first.append(texts)
        return path(clock, 1.0)(texts)

    choice = compare({"torch": cold, "onnx": path(clock, 0.5)}, preferred="onnx", clock=clock)
    assert choice.speed["onnx"] / choice.speed["torch"] == pytest.approx(2.0)


def test_a_path_that_fails_is_out() -> None:
    clock = Clock()

    def broken(texts: Sequence[str]) -> Vector:
        raise OSError("no such instruction")

    choice = compare({"torch": path(clock, 1.0), "onnx": broken}, preferred="onnx", clock=clock)
    assert choice.path == "torch"
    assert "onnx" not in choice.speed


def test_a_choice_is_remembered_per_model_and_threads(tmp_path: Path) -> None:
    source, memory = locate("all-MiniLM-L6-v2"), Memory(tmp_path / "cache")
    choice = Choice("torch", "measured", {"torch": 2.0}, {"torch": 1.0})
    assert memory.recall(source, 1) is None
    memory.keep(source, 1, choice)
    assert Memory(tmp_path / "cache").recall(source, 1) == choice
    assert memory.recall(source, 2) is None


def test_a_choice_that_cannot_be_kept_or_read_is_no_error(tmp_path: Path) -> None:
    source = locate("all-MiniLM-L6-v2")
    file = tmp_path / "file"
    file.write_text("in the way")
    Memory(file).keep(source, 1, Choice("torch", "measured"))
    memory = Memory(tmp_path)
    memory.keep(source, 1, Choice("torch", "measured"))
    next(tmp_path.glob("encoder-*.json")).write_text("{broken")
    assert memory.recall(source, 1) is None


def test_a_remembered_choice_is_what_the_next_process_loads(tiny_model: Callable[..., Path]) -> None:
    source = locate(str(tiny_model()))
    Memory().keep(source, 1, Choice("torch", "measured earlier"))
    assert Runner(source, CPU).backend.name == "torch"


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_fast_path_gives_the_vectors_of_the_reference(tiny_model: Callable[..., Path], pooling: str) -> None:
    from sentence_transformers import SentenceTransformer

    directory = tiny_model(pooling=pooling)
    runner = Runner(locate(str(directory)), CPU)
    assert runner.backend.name == "onnx"
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS, normalize_embeddings=True)
    found = runner.embed(runner.pieces.ids(TEXTS), rows=2)
    assert (found * expected).sum(axis=1).min() > 0.99999


def test_the_default_model_agrees_with_sentence_transformers_on_every_sample() -> None:
    runner = Runner(locate("all-MiniLM-L6-v2"), CPU)
    assert runner.choice.speed == {}
    choice = runner.settle()
    assert min(choice.cosine.values()) > 0.9999
    assert set(choice.cosine) >= {"torch", "onnx"} | (
        {"int16"} if binding.get_host_cpu_features().get("avx2") else set()
    )
    assert Memory().recall(runner.source, 1) == choice
    assert runner.settle() is choice
    assert runner.embed(runner.pieces.ids(SAMPLES)).shape == (len(SAMPLES), 384)


@pytest.mark.parametrize(
    "change", [{"pooling": "max"}, {"config": {"hidden_act": "relu"}}, {"config": {"position_embedding_type": "none"}}]
)
def test_what_the_fast_path_does_not_know_runs_on_the_reference(
    tiny_model: Callable[..., Path], change: dict[str, object]
) -> None:
    from sentence_transformers import SentenceTransformer

    directory = tiny_model(**change)
    runner = Runner(locate(str(directory)), CPU)
    assert runner.backend.name == "torch"
    assert "onnx cannot be used" in runner.choice.reason
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(runner.embed(runner.pieces.ids(TEXTS)), expected, atol=2e-5)


class Failing:
    """A backend that fails as told, and says how large the passes were that it was asked for."""

    def __init__(self, inner: OnnxBackend, error: Exception, *, above: int = 0) -> None:
        self.name, self.device = "onnx", "cpu"
        self._inner, self._error, self._above = inner, error, above
        self.passes: list[int] = []

    def run(self, batches: Iterator[Batch]) -> Iterator[Vector]:
        for batch in batches:
            self.passes.append(len(batch.rows))
            if len(batch.rows) > self._above:
                raise self._error
            yield from self._inner.run([batch])

    def pooled_and_states(self, batch: Batch) -> tuple[Vector, Vector]:
        raise self._error


def failing(runner: Runner, error: Exception, *, above: int = 0) -> Failing:
    assert isinstance(runner.backend, OnnxBackend)
    backend = Failing(runner.backend, error, above=above)
    runner.backend = backend
    return backend


def test_a_fast_path_that_fails_at_work_gives_way_to_the_reference(tiny_model: Callable[..., Path]) -> None:
    runner = Runner(locate(str(tiny_model())), CPU)
    pieces = runner.pieces.ids(TEXTS)
    before = runner.embed(pieces)
    failing(runner, RuntimeError("kernel not found"))
    assert (runner.embed(pieces) * before).sum(axis=1).min() > 0.99999
    assert runner.backend.name == "torch"
    assert "kernel not found" in runner.choice.reason


def test_out_of_memory_halves_the_batch(tiny_model: Callable[..., Path]) -> None:
    runner = Runner(locate(str(tiny_model())), CPU)
    pieces = runner.pieces.ids(["same length"] * 16)
    before = runner.embed(pieces)
    backend = failing(runner, MemoryError(), above=2)
    np.testing.assert_allclose(runner.embed(pieces, rows=8), before, atol=1e-6)
    assert backend.passes[:3] == [8, 4, 2]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError(), OutOfMemory),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfMemory),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (RuntimeError("CUDA error: device-side assert triggered"), ModelUnavailable),
    ],
)
def test_what_the_machine_lacks_is_never_the_texts_fault(
    tiny_model: Callable[..., Path], error: Exception, kind: type[Exception]
) -> None:
    runner = Runner(locate(str(tiny_model())), CPU)
    failing(runner, error)
    with pytest.raises(kind):
        runner.embed(runner.pieces.ids(["one text"]))
    assert issubclass(kind, ModelUnavailable)


def test_a_vector_that_is_not_finite_is_an_error_of_the_text(tiny_model: Callable[..., Path]) -> None:
    directory = tiny_model()
    from safetensors.numpy import load_file, save_file

    weights = load_file(directory / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][7592] = np.nan  # hello
    save_file(weights, directory / "model.safetensors")
    runner = Runner(locate(str(directory)), CPU)
    assert np.isfinite(runner.embed(runner.pieces.ids(["goodbye"]))).all()
    with pytest.raises(EncodingFailed, match="not finite"):
        runner.embed(runner.pieces.ids(["hello"]))


def test_half_precision_on_a_cpu_is_a_configuration_error(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match="fp16"):
        Runner(locate(str(tiny_model())), ModelOptions(device="cpu", fp16=True))


def test_broken_weights_are_a_model_that_is_unavailable(tiny_model: Callable[..., Path]) -> None:
    directory = tiny_model()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 10) + b"not json at all")
    with pytest.raises(ModelUnavailable):
        TextEncoder(locate(str(directory)), CPU)


def test_a_fingerprint_tells_models_apart_and_survives_a_move(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    directory = tiny_model()
    first = locate(str(directory)).fingerprint
    moved = tmp_path / "elsewhere" / directory.name
    shutil.copytree(directory, moved)
    assert locate(str(moved)).fingerprint == first
    weights = bytearray((moved / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    retrained = tmp_path / "retrained" / directory.name
    shutil.copytree(directory, retrained)
    (retrained / "model.safetensors").write_bytes(weights)
    assert locate(str(retrained)).fingerprint.digest() != first.digest()
    pooled = tmp_path / "pooled" / directory.name
    shutil.copytree(directory, pooled)
    (pooled / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 32, "pooling_mode_cls_token": True})
    )
    assert locate(str(pooled)).fingerprint.pooling == "cls"
