"""Ringing over a real Redis: few messages, never a wait, never a lost wish."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.processes import RedisServer, until
from ww_core.config import Settings
from ww_core.models import Run
from ww_core.stores.ports import Queue
from ww_workers.doorbell import RedisDoorbell
from ww_workers.producer import RedisBells, embed_bell, embed_flag


def settings(server: RedisServer, directory: Path) -> Settings:
    return Settings(data_dir=directory, redis_url=server.url)


def waiting(server: RedisServer, queue: Queue = Queue.EMBED) -> int:
    with server.client() as client:
        return int(client.llen(queue.value))


def test_a_burst_from_many_threads_is_one_message(redis_server: RedisServer, tmp_path: Path) -> None:
    bells = [embed_bell(settings(redis_server, tmp_path)) for _ in range(3)]
    threads = [threading.Thread(target=lambda b=bell: [b.ring() for _ in range(700)]) for bell in bells]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: waiting(redis_server) > 0)
    for bell in bells:
        bell.close()
    assert waiting(redis_server) == 1


def test_what_is_rung_after_the_flag_came_down_is_a_new_message(redis_server: RedisServer, tmp_path: Path) -> None:
    bell = embed_bell(settings(redis_server, tmp_path))
    bell.ring()
    until(lambda: waiting(redis_server) == 1)
    embed_flag(settings(redis_server, tmp_path)).clear()
    bell.ring()
    until(lambda: waiting(redis_server) == 2)
    bell.close()


def test_ringing_never_waits_for_a_redis_that_does_not_answer(redis_server: RedisServer, tmp_path: Path) -> None:
    bell = embed_bell(settings(redis_server, tmp_path))
    redis_server.freeze()
    try:
        longest = 0.0
        for _ in range(100):
            started = time.perf_counter()
            bell.ring()
            longest = max(longest, time.perf_counter() - started)
        assert longest < 0.5
    finally:
        redis_server.thaw()
    until(lambda: waiting(redis_server) == 1, what="the ring is made up for")
    bell.close()


def test_closing_is_bounded_where_the_broker_is_away(redis_server: RedisServer, tmp_path: Path) -> None:
    bell = embed_bell(Settings(data_dir=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    bell.ring()
    started = time.monotonic()
    bell.close()
    assert time.monotonic() - started < 10


def test_every_flag_goes_away_by_itself(redis_server: RedisServer, tmp_path: Path) -> None:
    bells = RedisBells(settings(redis_server, tmp_path))
    bells.embed()
    bells.consolidate(Run("r1", "s", "requested"))
    until(lambda: waiting(redis_server) == 1)
    with redis_server.client() as client:
        flags = list(client.scan_iter("ww:doorbell:*"))
        assert len(flags) == 2
        assert all(0 < client.ttl(flag) <= 60 for flag in flags)
    bells.close()


def test_a_run_is_rung_for_once(redis_server: RedisServer, tmp_path: Path) -> None:
    bells = RedisBells(settings(redis_server, tmp_path))
    for _ in range(5):
        bells.consolidate(Run("r1", "s", "requested"))
    bells.consolidate(Run("r2", "s", "requested"))
    assert waiting(redis_server, Queue.CONSOLIDATE) == 2
    bells.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_died_of_a_defect_is_replaced_by_the_next_ring(redis_server: RedisServer, tmp_path: Path) -> None:
    calls: list[str] = []

    def send() -> None:
        calls.append("send")
        if len(calls) == 1:
            raise AssertionError("a defect")

    bell = RedisDoorbell(embed_flag(settings(redis_server, tmp_path)), send)
    bell.ring()
    until(lambda: not any(thread.name == "ww-doorbell" for thread in threading.enumerate()), what="it died")
    bell.ring()
    until(lambda: len(calls) == 2, what="the next ring is heard")
    bell.close()
