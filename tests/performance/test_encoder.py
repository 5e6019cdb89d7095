"""The encoder against SentenceTransformer.encode in one run, on one thread; and a query beside a bulk of texts."""

from __future__ import annotations

import threading

from tests.performance.conftest import Measured
from ww.bench.embedding import LEAST_COSINE, prose
from ww_core.config import Settings
from ww_core.embedding import EmbeddingService

FLOOR = 1.4  # of the aim of 1.7 (2 where the CPU has bfloat16): what noise cannot take away


def test_encoder_beats_sentence_transformers(measured: Measured) -> None:
    found = {figure.name: figure for figure in measured("encoder")}
    print(f"\nencoder: {found['encoder'].ratio:.2f} times SentenceTransformer.encode ({found['encoder'].note})")
    assert found["encoder"].ratio >= FLOOR
    assert found["encoder_cosine"].value >= LEAST_COSINE


def test_one_short_query_does_not_wait_for_a_bulk() -> None:
    """A query is answered while a bulk of texts is under way, not after it."""
    service = EmbeddingService(Settings(embedding_device="cpu", embedding_threads=1, embedding_cache_size=0))
    service.warm()
    texts = prose(200)
    started, done = threading.Event(), threading.Event()

    def bulk() -> None:
        started.set()
        service.embed_windows(texts)
        done.set()

    thread = threading.Thread(target=bulk)
    thread.start()
    assert started.wait(10)
    service.encode_query("a short query")
    assert not done.is_set()
    thread.join()
