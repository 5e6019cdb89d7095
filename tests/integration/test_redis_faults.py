"""Whatever is wrong with Redis: storing goes on, the fault is said in one line, and what was rung for arrives later."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
import redis

from tests.processes import RedisServer, until
from ww.memory.episodic import EpisodicMemory
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import BrokerUnavailable
from ww_core.stores.ports import Queue
from ww_workers.doctor import Finding, examine
from ww_workers.inspection import queue_lengths

STORE_SECONDS = 2.0
"""A store never waits for a broker; opening the stores takes its time where others use the machine."""
LOOK_SECONDS = 15.0


def said(settings: Settings) -> Finding:
    """What the doctor says of the broker, and in bounded time."""
    deployment = Deployment(settings)
    started = time.monotonic()
    try:
        (found,) = [f for f in examine(deployment, look_seconds=0.05) if f.name in ("broker", "memory") and not f.ok]
    finally:
        deployment.close()
    assert time.monotonic() - started < LOOK_SECONDS
    assert "\n" not in found.message
    return found


@contextmanager
def locked(server: RedisServer) -> Iterator[str]:
    with server.client() as client:
        client.config_set("requirepass", "sesame")
        yield "check user and password"
    with redis.Redis.from_url(server.url, password="sesame") as client:
        client.config_set("requirepass", "")


@contextmanager
def full(server: RedisServer) -> Iterator[str]:
    with server.client() as client:
        client.set("somebody else's", b"x" * 1_000_000)
        client.config_set("maxmemory", "500kb")
        yield "raise its maxmemory"
        client.config_set("maxmemory", "0")


@contextmanager
def frozen(server: RedisServer) -> Iterator[str]:
    server.freeze()
    try:
        yield "is Redis running"
    finally:
        server.thaw()


@contextmanager
def away(server: RedisServer) -> Iterator[str]:
    server.close()
    yield "is Redis running"
    server.ensure()


@pytest.mark.parametrize("fault", [locked, full, frozen, away])
def test_a_fault_is_named_and_passes(
    fault: Callable[[RedisServer], AbstractContextManager[str]], redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = Settings(redis_url=redis_server.url, data_dir=tmp_path)
    with EpisodicMemory(settings=settings) as memory:
        memory.sync.store("before")
        until(lambda: queue_lengths(settings)[Queue.EMBED.value] == 1, what="it was rung")
        with redis_server.client() as client:
            client.flushall()
        with fault(redis_server) as hint:
            started = time.monotonic()
            memory.sync.store("meanwhile")
            assert time.monotonic() - started < STORE_SECONDS
            assert hint in said(settings).hint
        # the bell was kept, and nobody had to be started again
        until(lambda: queue_lengths(settings)[Queue.EMBED.value] == 1, what="it is rung now")
        assert memory.sync.counts().pending == 2


def test_something_that_is_no_redis_is_named(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        settings = Settings(redis_url=f"redis://127.0.0.1:{listener.getsockname()[1]}/0", data_dir=tmp_path)
        assert "is no Redis" in said(settings).hint
        with pytest.raises(BrokerUnavailable, match="Protocol Error"):
            queue_lengths(settings)
