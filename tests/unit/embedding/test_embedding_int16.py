"""Products of 16-bit integers: the reference's vectors, whatever shares the pass, and no sum that overflows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from tests.processes import ROOT, run_python, until
from tests.support.settling import settles_later
from ww_core.embedding.backends import unit
from ww_core.embedding.bert import UnsupportedModel
from ww_core.embedding.int16 import backend as int16
from ww_core.embedding.int16.kernels import LEVELS, Linear, _exp, _linear, _quantise
from ww_core.embedding.onnx_backend import OnnxBackend
from ww_core.embedding.paths import SAMPLES, Choice, Memory
from ww_core.embedding.runner import INT16, ModelOptions, Runner
from ww_core.embedding.source import locate
from ww_core.embedding.tokens import Batch, WordPieces
from ww_core.models import Vector

pytestmark = pytest.mark.skipif(
    not binding.get_host_cpu_features().get("avx2"), reason="the CPU has no AVX2, which the int16 path needs"
)

CPU = ModelOptions(device="cpu", threads=1)
TEXTS = ["hello world", "a", "", "the deploy failed: out of disk", "Zürich, 42.50 EUR " * 4]


def embedded(backend: int16.Int16Backend, batches: list[Batch], count: int) -> Vector:
    found: dict[int, Vector] = {}
    for batch, rows in zip(batches, backend.run(iter(batches)), strict=True):
        found.update(zip(batch.rows, rows, strict=True))
    return np.stack([found[row] for row in range(count)])


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors_are_those_of_the_reference(tiny_model: Callable[..., Path], pooling: str) -> None:
    from sentence_transformers import SentenceTransformer

    directory = tiny_model(pooling=pooling)
    source = locate(str(directory))
    pieces = WordPieces(source)
    batches = list(pieces.batches(pieces.ids(TEXTS), rows=2, tokens=512))
    found = unit(embedded(int16.Int16Backend.load(source, threads=1), batches, len(TEXTS)))
    expected = SentenceTransformer(str(directory), device="cpu").encode(TEXTS, normalize_embeddings=True)
    assert (found * expected).sum(axis=1).min() > 0.99999


def test_the_default_model_agrees_with_float32_on_pooled_vectors_and_states() -> None:
    source = locate("all-MiniLM-L6-v2")
    pieces = WordPieces(source)
    ours, other = int16.Int16Backend.load(source, threads=1), OnnxBackend.load(source, threads=1)
    for batch in pieces.batches(pieces.ids(SAMPLES), rows=4, tokens=1024):
        (pooled, states), (expected, expected_states) = ours.pooled_and_states(batch), other.pooled_and_states(batch)
        assert (unit(pooled) * unit(expected)).sum(axis=1).min() > 0.9999
        there = batch.mask.astype(bool)
        assert (unit(states[there]) * unit(expected_states[there])).sum(axis=1).min() > 0.999
        assert not states[~there].any()


def test_a_vector_does_not_depend_on_what_shares_its_pass() -> None:
    source = locate("all-MiniLM-L6-v2")
    pieces = WordPieces(source)
    backend = int16.Int16Backend.load(source, threads=1)
    ids = pieces.ids(SAMPLES)
    alone, together = (
        embedded(backend, list(pieces.batches(ids, rows=rows, tokens=100_000)), len(ids)) for rows in (1, len(ids))
    )
    np.testing.assert_array_equal(alone, together)


def test_threads_give_the_same_vectors_in_the_order_asked_for() -> None:
    source = locate("all-MiniLM-L6-v2")
    pieces = WordPieces(source)
    batches = list(pieces.batches(pieces.ids(SAMPLES), rows=2, tokens=1024))
    one, three = (int16.Int16Backend.load(source, threads=threads) for threads in (1, 3))
    for expected, found in itertools.zip_longest(one.run(batches), three.run(iter(batches))):
        np.testing.assert_array_equal(found, expected)


def test_where_no_thread_can_be_had_the_passes_run_on_the_callers(tiny_model: Callable[..., Path]) -> None:
    source = locate(str(tiny_model()))
    pieces = WordPieces(source)
    batches = list(pieces.batches(pieces.ids(TEXTS), rows=1, tokens=512))
    backend = int16.Int16Backend.load(source, threads=2)
    expected = list(backend.run(batches))
    assert backend._pool is not None
    backend._pool.shutdown()  # as the interpreter does at its end, before the functions of atexit
    np.testing.assert_array_equal(np.stack(list(backend.run(batches))), np.stack(expected))


@pytest.mark.parametrize("depth", [2, 384, 1536, 4096])
def test_the_largest_sums_there_can_be_do_not_overflow(depth: int) -> None:
    weights = np.random.default_rng(depth).standard_normal((depth, 16)).astype(np.float32)
    weights[:, 0] = 1.0
    weights[:, 1] = -3e-30
    weights[:, 2] = 0.0
    weights[1:, 3] = 0.0  # one weight alone has all levels
    integers, scales = int16._rounded(weights)
    assert (np.abs(integers.astype(np.int64)).sum(axis=(1, 3)) * LEVELS).max() < 2**31
    rows = np.sign(weights.T[[0, 1, 3, 4, 5, 6]]) + np.float32(0)
    packed, worth = np.zeros(rows.shape, np.int16), np.zeros(len(rows), np.float32)
    for row in range(len(rows)):
        worth[row] = _quantise(rows[row], packed[row])
    out = np.zeros((6, 16), np.float32)
    linear = Linear(integers[np.newaxis], scales[np.newaxis], np.full((1, 16), 0.5, np.float32))
    _linear(packed, worth, linear, 0, False, out)
    expected = rows.astype(np.float64) @ weights + 0.5
    half_a_step = np.abs(rows).sum(axis=1, keepdims=True) * scales / 2  # of each weight at most; activations are exact
    assert (np.abs(out - expected) <= half_a_step * 1.001 + 1e-5).all()


def test_the_exponential_is_that_of_numpy() -> None:
    powers = np.linspace(-80, 80, 4001, dtype=np.float32)
    found = np.array([_exp(power) for power in powers])
    np.testing.assert_allclose(found, np.exp(powers.astype(np.float64)), rtol=4e-7)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"num_attention_heads": 4}, "heads have 8 numbers"), ({"hidden_act": "relu"}, "hidden_act is 'relu'")],
)
def test_a_model_that_does_not_fit_is_refused(
    tiny_model: Callable[..., Path], change: dict[str, object], reason: str
) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        int16.Int16Backend.load(locate(str(tiny_model(config=change))), threads=1)


def test_weights_that_are_not_finite_are_refused(tiny_model: Callable[..., Path]) -> None:
    from safetensors.numpy import load_file, save_file

    file = tiny_model() / "model.safetensors"
    weights = load_file(file)
    weights["encoder.layer.1.output.dense.weight"][3, 5] = np.inf
    save_file(weights, file)
    with pytest.raises(UnsupportedModel, match="not finite"):
        int16.Int16Backend.load(locate(str(file.parent)), threads=1)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embeddings.LayerNorm.bias", (16,)),
        ("embeddings.word_embeddings.weight", (30522, 48)),
        ("encoder.layer.1.output.LayerNorm.weight", (16,)),
        ("encoder.layer.0.intermediate.dense.bias", (48,)),
        ("encoder.layer.1.output.dense.weight", (32, 96)),
        ("encoder.layer.1.attention.self.value.weight", (48, 32)),
    ],
)
def test_weights_that_do_not_fit_each_other_are_refused(
    tiny_model: Callable[..., Path], name: str, shape: tuple[int, ...]
) -> None:
    from safetensors.numpy import load_file, save_file

    file = tiny_model() / "model.safetensors"
    weights = load_file(file)
    for alike in (name, name.replace("layer.0", "layer.1"), name.replace("layer.1", "layer.0")):
        weights[alike] = np.ones(shape, np.float32)
    save_file(weights, file)
    with pytest.raises(UnsupportedModel, match="shapes"):
        int16.Int16Backend.load(locate(str(file.parent)), threads=1)


@pytest.mark.parametrize("ids", [[[101, 30522]], [[101, -1]], [[101] * 65]])
def test_word_pieces_that_the_model_does_not_have_are_an_error(
    tiny_model: Callable[..., Path], ids: list[list[int]]
) -> None:
    backend = int16.Int16Backend.load(locate(str(tiny_model())), threads=1)
    batch = Batch(np.array(ids), np.ones_like(ids), (0,))
    with pytest.raises(ValueError, match="the 30522 that the model knows"):
        list(backend.run([batch]))


def test_a_cpu_chosen_by_numbas_settings_is_refused(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.config.CPU_NAME", "generic")
    with pytest.raises(UnsupportedModel, match="NUMBA_CPU_NAME"):
        int16.Int16Backend.load(locate(str(tiny_model())), threads=1)


def test_a_process_begins_on_what_loads_soonest_and_takes_the_fastest_with_the_bulk(
    tiny_model: Callable[..., Path],
) -> None:
    source = locate(str(tiny_model()))
    Memory().keep(source, 1, Choice(INT16, "measured earlier", {INT16: 2.0}, {INT16: 1.0}))
    runner = Runner(source, CPU)
    assert runner.choice.path == runner.backend.name == OnnxBackend.name
    before = runner.embed(runner.pieces.ids(TEXTS))
    runner.settle_aside(str(source.directory))
    until(lambda: runner.backend.name == INT16, what="the fastest path is in use")
    assert (runner.embed(runner.pieces.ids(TEXTS)) * before).sum(axis=1).min() > 0.99999
    until(lambda: runner.choice.path == INT16, what="the choice says so")
    again = Runner(source, CPU)
    assert again.settle().path == INT16
    assert again.backend.name == INT16


def test_a_child_forked_while_the_path_is_opened_opens_it_too(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    source = locate(str(tiny_model()))
    Memory().keep(source, 1, Choice(INT16, "measured earlier", {INT16: 2.0}, {INT16: 1.0}))
    run_python(FORKED, str(source.directory), cwd=ROOT, XDG_CACHE_HOME=str(tmp_path / "cache"))


FORKED = """
import os, signal, sys, threading
from unittest.mock import patch
from numba.core.compiler_lock import global_compiler_lock
from ww_core.embedding.int16.backend import Int16Backend
from ww_core.embedding.runner import ModelOptions, Runner
from ww_core.embedding.source import locate

source, options = locate(sys.argv[1]), ModelOptions(device="cpu", threads=1)
load, compiling, forking = Int16Backend.load, threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)

def slowly(*arguments, **named):
    with global_compiler_lock:
        compiling.set()
        forking.wait(60)
        return load(*arguments, **named)

runner = Runner(source, options)
with patch.object(Int16Backend, "load", slowly):
    runner.settle_aside(sys.argv[1])
    compiling.wait()
    child = os.fork()
if child == 0:
    signal.alarm(80)  # which ends a child that waits for a lock
    load(source, threads=1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_where_no_thread_can_be_had_a_process_stays_on_what_it_has(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = locate(str(tiny_model()))
    Memory().keep(source, 1, Choice(INT16, "measured earlier", {INT16: 2.0}, {INT16: 1.0}))
    settles_later(Runner(source, CPU), str(source.directory), monkeypatch)


def test_where_the_fastest_cannot_be_taken_the_work_goes_on(
    tiny_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = locate(str(tiny_model()))
    Memory().keep(source, 1, Choice(INT16, "measured earlier", {INT16: 2.0}, {INT16: 1.0}))
    monkeypatch.setattr("numba.config.CPU_FEATURES", "+sse2")
    runner = Runner(source, CPU)
    assert runner.settle().path == OnnxBackend.name
    assert "int16 cannot be used" in runner.choice.reason
    assert runner.embed(runner.pieces.ids(TEXTS)).shape == (len(TEXTS), 32)
