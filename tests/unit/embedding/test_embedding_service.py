"""The service: lazy, cached, whole texts, one model per process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.processes import ROOT, run_python
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService, TextRefused, encoder
from ww_core.embedding.runner import ModelOptions, Runner
from ww_core.errors import ConfigurationError, InvalidInput, ModelUnavailable

Sized = Callable[..., Settings]


@pytest.fixture
def changed(settings: Settings) -> Sized:
    return lambda **values: settings.model_copy(update=values)


def filler(characters: int) -> str:
    """Prose about nothing in particular."""
    sentences, size = [], 0
    while size < characters:
        i = len(sentences)
        sentences.append(
            f"Item {i} of the ledger was checked against invoice {i * 37 % 991} and filed in drawer {i % 12}."
        )
        size += len(sentences[-1]) + 1
    return " ".join(sentences)[:characters]


def test_importing_asking_and_reading_statistics_load_no_model() -> None:
    code = """
import sys
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService
service = EmbeddingService(Settings())
assert service.dimension == 384
assert service.fingerprint.model == "all-MiniLM-L6-v2"
assert service.cache_stats()["total"] == 0
assert not service.describe().loaded
heavy = {"torch", "transformers", "sentence_transformers", "onnxruntime", "onnx", "tokenizers", "numba", "llvmlite"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_rows_are_float32_of_length_one(service: EmbeddingService) -> None:
    rows = service.encode(["hello", "", filler(5000)])
    assert (rows.shape, rows.dtype) == ((3, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert service.encode([]).shape == (0, 384)
    assert service.encode("hello").shape == (1, 384)
    np.testing.assert_allclose(service.encode_query("hello"), rows[0], atol=1e-6)


def test_like_texts_are_near_and_others_far(service: EmbeddingService) -> None:
    a, b, c = service.encode(["The build machine ran out of disk", "no space left on the server", "I love plum cake"])
    assert a @ b > 0.3 > a @ c


def test_a_long_text_is_the_mean_of_its_windows(service: EmbeddingService) -> None:
    text = filler(6000)
    [windows] = service.embed_windows([text])
    assert len(windows) == len(service.windows(text)) > 6
    np.testing.assert_allclose(windows, service.encode(service.windows(text)), atol=1e-4)
    mean = windows.mean(axis=0)
    np.testing.assert_allclose(service.encode([text])[0], mean / np.linalg.norm(mean), atol=1e-4)


def test_the_last_sentence_of_fifty_thousand_characters_is_found_by_a_paraphrase(service: EmbeddingService) -> None:
    ending = "The violinist hid the stolen emerald inside a hollow loaf of rye bread."
    long = filler(50_000 - len(ending) - 1) + " " + ending
    others = [filler(3000), "She plays chess on Sundays.", "Bread prices rose again.", "The concert was sold out."]
    query = service.encode_query("Where did the musician conceal the gem that was taken?")
    windows = service.embed_windows([long, *others])
    scores = [float((rows @ query).max()) for rows in windows]
    assert len(long) == 50_000
    assert scores[0] == max(scores)
    assert int((windows[0] @ query).argmax()) == len(windows[0]) - 1


def test_a_text_asked_for_again_comes_from_the_cache(service: EmbeddingService) -> None:
    first = service.encode(["one", "two", "one"])
    again = service.encode_query("two")
    np.testing.assert_array_equal(first[1], again)
    stats = service.cache_stats()
    assert (stats["hits"], stats["misses"], stats["size"]) == (2, 2, 2)
    again[:] = 0
    assert service.encode_query("two").any()
    service.close()
    assert service.cache_stats()["size"] == 0


def test_bulk_work_reads_the_cache_and_leaves_it_alone(changed: Sized) -> None:
    service = EmbeddingService(changed(embedding_cache_size=2))
    service.encode(["one", "two"])
    before = dict(service.cache_stats())
    rows = service.embed_windows(["one", "three", "four", "three"])
    assert [row.shape for row in rows] == [(1, 384)] * 4
    np.testing.assert_array_equal(rows[1], rows[3])
    np.testing.assert_array_equal(rows[0][0], service.encode_query("one"))
    assert service.cache_stats()["size"] == before["size"]
    assert service.cache_stats()["misses"] == before["misses"]


def test_a_long_text_keeps_its_windows_where_its_mean_is_cached(service: EmbeddingService) -> None:
    text = filler(5000)
    (before,) = service.embed_windows([text])
    service.encode([text])
    (after,) = service.embed_windows([text])
    assert before.shape == after.shape
    assert len(before) > 1
    assert np.allclose(before, after, atol=1e-5)


def test_the_cache_settings_bound_and_age_it(changed: Sized) -> None:
    now = [0.0]
    service = EmbeddingService(changed(embedding_cache_size=1, embedding_cache_ttl=10.0), clock=lambda: now[0])
    service.encode(["one", "two"])
    assert (service.cache_stats()["size"], service.cache_stats()["evictions"]) == (1, 1)
    now[0] = 11.0
    service.encode(["two"])
    assert service.cache_stats()["expired"] == 1


def test_the_batch_size_bounds_one_forward_pass(changed: Sized, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    service = EmbeddingService(changed(embedding_batch_size=3))
    service.warm()
    backend = _runner(service).backend
    run = type(backend).run

    def spy(self: object, batches: object) -> object:
        for batch in batches:  # type: ignore[attr-defined]
            passes.append(len(batch.rows))
            yield from run(self, [batch])  # type: ignore[arg-type]

    monkeypatch.setattr(type(backend), "run", spy)
    service.encode([f"text {i}" for i in range(10)])
    assert sorted(passes) == [1, 3, 3, 3]
    passes.clear()
    EmbeddingService(changed(embedding_batch_size=None)).encode([f"more {i}" for i in range(10)])
    assert sorted(passes) == [2, 8]
    passes.clear()
    EmbeddingService(changed(embedding_batch_size=64)).embed_windows([filler(850 + i) for i in range(6)])
    assert max(passes) <= 3, "long texts share a pass only within its budget of word pieces"


THREADS = """
import sys
import psutil
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService
process = psutil.Process()
for wanted in (1, 4):
    EmbeddingService(Settings(embedding_model=sys.argv[1], embedding_threads=wanted)).warm()
    print(process.num_threads())
"""


def test_the_thread_setting_reaches_the_model(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    # in a process of its own: here the threads of other tests come and go
    one, four = map(int, run_python(THREADS, str(tiny_model()), cwd=tmp_path, PYTHONPATH=str(ROOT)).split())
    assert four >= one + 3


def test_services_share_one_model_that_loads_once(changed: Sized, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.unload()
    made: list[ModelOptions] = []
    init = Runner.__init__

    def counted(self: Runner, source: object, options: ModelOptions) -> None:
        made.append(options)
        init(self, source, options)  # type: ignore[arg-type]

    monkeypatch.setattr(Runner, "__init__", counted)
    services = [EmbeddingService(changed(embedding_cache_size=n)) for n in range(4)]
    threads = [threading.Thread(target=s.encode, args=([f"text {i}"],)) for i, s in enumerate(services)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1


def test_a_forked_child_embeds_as_its_parent_does(service: EmbeddingService) -> None:
    expected = service.encode(["before the fork", "another"])
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover - the child
        try:
            service.close()
            rows = EmbeddingService(service._settings).encode(["another"])
            own = service.encode(["before the fork"])
            os.write(write, json.dumps([own[0].tolist(), rows[0].tolist()]).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        found = json.loads(answer.read())
    assert os.waitpid(pid, 0)[1] == 0
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_child_forked_while_the_cache_is_locked_goes_on(service: EmbeddingService) -> None:
    service.encode(["warm"])
    with service._cache._lock, service._bulk:
        pid = os.fork()
        if pid == 0:  # pragma: no cover - the child
            try:
                service.embed_windows(["bulk"])
                service.encode(["warm"])
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_bad_text_is_the_texts_error_and_leaves_the_rest_usable(service: EmbeddingService) -> None:
    with pytest.raises(TextRefused) as refused:
        service.embed_windows(["good", "bad \ud800"])
    assert isinstance(refused.value, InvalidInput)
    assert not isinstance(refused.value, ModelUnavailable)
    with pytest.raises(InvalidInput, match="text 1 is int"):
        service.encode(["good", 7])  # type: ignore[list-item]
    assert service.encode(["good"]).shape == (1, 384)


def test_a_missing_model_says_so_and_what_to_do(changed: Sized) -> None:
    service = EmbeddingService(changed(embedding_model="no-such-model"))
    with pytest.raises(ModelUnavailable, match="no-such-model") as missing:
        service.encode(["text"])
    assert "embedding_model" in missing.value.hint
    assert service.cache_stats()["size"] == 0


def test_a_directory_that_is_no_model_says_so(changed: Sized, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=str(tmp_path)):
        EmbeddingService(changed(embedding_model=str(tmp_path))).fingerprint.digest()


def test_half_precision_on_a_cpu_is_refused_at_once(changed: Sized) -> None:
    with pytest.raises(ConfigurationError, match="fp16"):
        EmbeddingService(changed(embedding_fp16=True))


def test_a_device_that_is_not_there_is_refused(changed: Sized) -> None:
    with pytest.raises(ConfigurationError, match="mps"):
        EmbeddingService(changed(embedding_device="mps")).encode(["text"])


def test_prompts_the_model_was_trained_with_are_used(tiny_model: Callable[..., Path], changed: Sized) -> None:
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}}
    name = str(tiny_model(**{"config_sentence_transformers.json": prompts}))
    service = EmbeddingService(changed(embedding_model=name))
    plain = EmbeddingService(changed(embedding_model=str(tiny_model())))
    np.testing.assert_allclose(service.encode_query("cake"), plain.encode_query("query: cake"), atol=1e-5)
    np.testing.assert_allclose(service.encode(["cake"]), plain.encode(["passage: cake"]), atol=1e-5)
    long = filler(800)
    [windows] = service.embed_windows([long])
    assert len(windows) == len(service.windows(long)) > 1
    encoder.unload()


def test_long_texts_are_made_a_few_at_a_time(service: EmbeddingService, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    embed = Runner.embed_as_made

    def counted(self: Runner, lists: Iterable[Sequence[Sequence[int]]], rows: int | None = None) -> Iterator[Any]:
        def counting() -> Iterator[Sequence[Sequence[int]]]:
            for pieces in lists:
                passes.append(len(pieces))
                yield pieces

        return embed(self, counting(), rows)

    monkeypatch.setattr(Runner, "embed_as_made", counted)
    monkeypatch.setattr(encoder, "_WINDOWS", 4)
    texts = [filler(1500 + i) for i in range(5)] + ["short"]
    seen = [(place, len(rows), len(passes)) for place, rows in service.windows_as_made([texts])]
    assert seen[0] == (5, 1, 1), "what is one window does not wait"
    assert [place for place, _, _ in seen[1:]] == [0, 1, 2, 3, 4]
    assert seen[1][2] < seen[-1][2] == len(passes)
    assert sum(passes) == sum(windows for _, windows, _ in seen)


def test_token_vectors_mean_to_the_texts_vector(service: EmbeddingService) -> None:
    texts = ["hello world", "a somewhat longer sentence about nothing"]
    for text, tokens in zip(texts, service.token_vectors(texts), strict=True):
        assert tokens.vectors.shape == (len(tokens.ids), 384)
        np.testing.assert_allclose(np.linalg.norm(tokens.vectors, axis=1), 1, atol=1e-5)
        assert float(tokens.vectors.mean(axis=0) @ service.encode([text])[0]) > 0.5


def test_a_query_and_its_tokens_are_one_pass_with_the_same_answers(service: EmbeddingService) -> None:
    for text in ("where is the key", "word " * 400):
        row, tokens = service.encode_query_with_tokens(text)
        before = service.cache_stats()["misses"]
        np.testing.assert_allclose(service.encode_query(text), row, atol=1e-6)
        assert service.cache_stats()["misses"] == before, "the vector was kept"
        (alone,) = service.token_vectors([text], kind="query")
        again = service.encode_query_with_tokens(text)[1]
        for read in (tokens, again):
            assert read.ids.tolist() == alone.ids.tolist()
            np.testing.assert_allclose(read.vectors, alone.vectors, atol=1e-5)


def test_describe_says_which_path_runs_and_why(service: EmbeddingService) -> None:
    service.warm()
    state = service.describe()
    assert state.loaded
    assert state.device == "cpu"
    assert state.choice is not None
    assert state.choice.reason
    assert state.window_tokens == 256


def test_memory_stays_flat_over_mixed_texts(tiny_model: Callable[..., Path], changed: Sized) -> None:
    service = EmbeddingService(changed(embedding_model=str(tiny_model()), embedding_cache_size=100))
    random = np.random.default_rng(3)
    process = psutil.Process()

    def work(rounds: int) -> int:
        for _ in range(rounds):
            texts: list[str] = [filler(int(n)) for n in random.integers(5, 1500, size=16)]
            service.embed_windows(texts)
            service.encode(texts)
        return int(process.memory_info().rss)

    settled = work(10)
    assert work(20) - settled < 12 * 2**20
    encoder.unload()


def _runner(service: EmbeddingService) -> Runner:
    return service._encoder()._runner
