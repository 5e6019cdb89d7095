"""On a CUDA device the same vectors, by recorded passes, also side by side and where memory is short."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from tests.processes import in_child
from tests.support.tiny_model import TinyModel
from ww.bench.embedding import prose
from ww_core.embedding.encoder import TextEncoder
from ww_core.embedding.runner import ModelOptions, Runner
from ww_core.embedding.source import locate
from ww_core.embedding.torch_backend import TorchBackend, pick_device
from ww_core.errors import ModelUnavailable
from ww_core.models import Vector

MODEL = "all-MiniLM-L6-v2"
TEXTS = prose(1500)


@pytest.fixture(autouse=True, scope="module")
def _device() -> Iterator[None]:
    if pick_device("auto") != "cuda":
        pytest.skip("torch finds no CUDA device")
    import torch

    yield
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def reference() -> Vector:
    return TextEncoder(locate(MODEL), ModelOptions(device="cpu")).encode(TEXTS)


def closeness(rows: Vector, others: Vector) -> float:
    """The smallest cosine of a row to its other."""
    return float((rows * others).sum(axis=1).min())


@pytest.mark.parametrize(("fp16", "cosine"), [(False, 0.99999), (True, 0.9995)])
def test_vectors_are_those_of_the_cpu(reference: Vector, fp16: bool, cosine: float) -> None:
    encoder = TextEncoder(locate(MODEL), ModelOptions(device="cuda", fp16=fp16))
    assert closeness(encoder.encode(TEXTS), reference) >= cosine
    assert closeness(encoder.encode(TEXTS), reference) >= cosine, "also when most of the passes are replayed"
    backend = encoder._runner.backend
    assert isinstance(backend, TorchBackend)
    assert backend._passes is not None
    assert backend._passes._recorded


def test_threads_get_their_own_vectors(reference: Vector) -> None:
    encoder = TextEncoder(locate(MODEL), ModelOptions(device="cuda"))
    made: dict[int, Vector] = {}

    def work(number: int) -> None:
        mine = slice(number * 300, (number + 1) * 300)
        made[number] = np.stack([encoder.encode(TEXTS[mine]) for _ in range(5)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, rounds in made.items():
        for rows in rounds:
            assert closeness(rows, reference[number * 300 : (number + 1) * 300]) >= 0.99999


def test_a_model_that_cannot_be_recorded_is_run_the_ordinary_way(
    reference: Vector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runner = Runner(locate(MODEL), ModelOptions(device="cuda"))
    assert isinstance(runner.backend, TorchBackend)
    passes = runner.backend._passes
    assert passes is not None
    forward = passes._forward

    def looking(ids: object, mask: object) -> object:
        result = forward(ids, mask)
        assert bool((result == result).all())  # looks at a value: a recording does not allow it
        return result

    monkeypatch.setattr(passes, "_forward", looking)
    with caplog.at_level("INFO"):
        pieces = runner.pieces.ids(TEXTS)
        assert closeness(runner.embed(pieces), reference) >= 0.99999
        assert closeness(runner.embed(pieces), reference) >= 0.99999
    assert not passes._recorded
    assert caplog.text.count("Passes are not recorded") == 1


def test_a_pass_that_does_not_fit_is_halved(caplog: pytest.LogCaptureFixture) -> None:
    import torch

    long = [" ".join(TEXTS[i : i + 4]) for i in range(256)]
    encoder = TextEncoder(locate(MODEL), ModelOptions(device="cuda"))
    whole = encoder.encode(long, rows=8)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 64 * 2**20) / total)
    try:
        assert closeness(encoder.encode(long, rows=256), whole) >= 0.99999
        assert "Batch halved" in caplog.text
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert closeness(encoder.encode(long, rows=8), whole) >= 0.99999, "and it goes on once there is memory"


def test_a_forked_child_of_a_user_of_the_device_is_told_so(tiny_model: TinyModel) -> None:
    directory = str(tiny_model())
    TextEncoder(locate(directory), ModelOptions(device="cuda")).encode(["a"])

    def work() -> None:
        with pytest.raises(ModelUnavailable, match="CUDA cannot be used in a forked process"):
            TextEncoder(locate(directory), ModelOptions(device="cuda"))

    assert in_child(work) == 0
