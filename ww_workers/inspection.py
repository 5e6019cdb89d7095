"""Who works on this deployment's broker, and how much waits there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ww_core.config import Settings
from ww_core.errors import BrokerUnavailable
from ww_core.masking import mask
from ww_core.stores.ports import Queue

REPLY_SECONDS = 1.0
"""How long workers are given to answer; one that is starved of CPU may be missing from the list."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A Celery worker that answered, and the queues it consumes."""

    name: str
    queues: tuple[str, ...]


def queue_lengths(settings: Settings) -> dict[str, int]:
    """Messages waiting in each queue; nothing without a broker. Raises BrokerUnavailable."""
    if settings.redis_url is None:
        return {}
    import redis

    url = settings.redis_url.get_secret_value()
    client = redis.Redis.from_url(url, socket_timeout=REPLY_SECONDS, socket_connect_timeout=REPLY_SECONDS)
    try:
        with client:
            return {queue.value: int(client.llen(queue.value)) for queue in Queue}
    except redis.RedisError as error:
        raise BrokerUnavailable(
            f"the broker {mask(url)} does not answer: {mask(str(error))}", hint="is Redis running, and redis_url right?"
        ) from error


def workers(settings: Settings) -> tuple[WorkerStatus, ...]:
    """The workers that answer within a second, by name; none without a broker."""
    if settings.redis_url is None:
        return ()
    from celery import Celery

    app = Celery(broker=settings.redis_url.get_secret_value(), set_as_current=False)
    with app.connection_for_read() as connection:
        replies = app.control.inspect(timeout=REPLY_SECONDS, connection=connection).active_queues() or {}
    return tuple(
        WorkerStatus(name, tuple(sorted(queue["name"] for queue in queues))) for name, queues in sorted(replies.items())
    )


def transport_options(settings: Settings) -> dict[str, dict[str, Any]]:
    """How the workers that answer talk to the broker, by worker name; none without a broker."""
    if settings.redis_url is None:
        return {}
    from celery import Celery

    app = Celery(broker=settings.redis_url.get_secret_value(), set_as_current=False)
    with app.connection_for_read() as connection:
        replies = app.control.inspect(timeout=REPLY_SECONDS, connection=connection).conf() or {}
    return {name: dict(conf.get("broker_transport_options") or {}) for name, conf in replies.items()}
