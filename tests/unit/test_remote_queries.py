"""Queries embedded by another process: cached, bounded, and never in the way of an answer."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from tests.processes import RedisServer
from tests.support.clock import Clock
from ww.memory.episodic import EpisodicMemory
from ww_core.embedding.remote import RemoteQueries
from ww_core.errors import BrokerUnavailable, ModelUnavailable


def test_an_answer_is_asked_for_once() -> None:
    asked: list[str] = []

    def ask(text: str) -> np.ndarray:
        asked.append(text)
        return np.ones(2, np.float32)

    queries = RemoteQueries(ask, cache_size=10, cache_ttl=60)
    assert queries.encode_query("why").dtype == np.float32
    queries.encode_query("why")
    assert asked == ["why"]
    assert (queries.cache_stats()["hits"], queries.cache_stats()["total"]) == (1, 2)


def test_somebody_who_does_not_answer_is_asked_less_and_less_often() -> None:
    asked: list[str] = []
    clock = Clock()

    def ask(text: str) -> np.ndarray:
        asked.append(text)
        raise BrokerUnavailable("no worker answered")

    queries = RemoteQueries(ask, cache_size=10, cache_ttl=60, clock=clock)
    for _ in range(600):
        with pytest.raises(ModelUnavailable):
            queries.encode_query("why")
        clock.now += 0.1
    assert 3 < len(asked) < 30


def test_recall_goes_by_words_where_no_worker_answers(redis_server: RedisServer, tmp_path: Path) -> None:
    with EpisodicMemory(
        session_id="s", data_dir=tmp_path, redis_url=redis_server.url, embedding_mode="remote"
    ) as memory:
        memory.sync.store("the deploy of api-7 failed: out of disk")
        started = time.monotonic()
        answer = memory.sync.recall("deploy failed")
        assert time.monotonic() - started < 20
        assert answer.mode == "bm25"
        assert len(answer) == 1
