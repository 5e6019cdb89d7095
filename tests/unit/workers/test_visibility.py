"""Renewal leans on kombu's internals: these tests fail where they change."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kombu import Connection, Consumer, Queue

from tests.processes import RedisServer
from ww_core.config import Settings
from ww_workers.settings import UNACKED, celery_settings
from ww_workers.visibility import renew


def test_a_message_that_is_held_is_renewed_and_one_that_is_done_does_not_come_back(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    values = celery_settings(Settings(data_dir=tmp_path, redis_url=redis_server.url))
    held: list[Any] = []
    index = f"{UNACKED}_index"
    with (
        Connection(redis_server.url, transport_options=values["broker_transport_options"]) as connection,
        redis_server.client() as client,
    ):
        queue = Queue("ww.embed", routing_key="ww.embed")
        for body in ("kept", "done"):
            connection.Producer().publish(body, routing_key="ww.embed", declare=[queue])
        with Consumer(connection, queues=[queue], callbacks=[lambda body, message: held.append(message)]):
            while len(held) < 2:
                connection.drain_events(timeout=10)
        assert client.zcard(index) == 2
        kept, done = held
        long_ago = time.time() - 50
        client.zadd(index, {kept.delivery_tag: long_ago})
        done.ack()
        assert renew([SimpleNamespace(message=kept), SimpleNamespace(message=done), SimpleNamespace()]) == 1
        assert client.zcard(index) == 1
        score = client.zscore(index, kept.delivery_tag)
        assert score is not None
        assert score > long_ago + 40
        # acknowledged elsewhere between two renewals: renewing must not bring it back
        client.zrem(index, kept.delivery_tag)
        renew([SimpleNamespace(message=kept)])
        assert client.zcard(index) == 0
