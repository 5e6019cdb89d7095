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
        raise _silent(url, error) from error


def workers(settings: Settings) -> tuple[WorkerStatus, ...]:
    """The workers that answer within a second, by name; none without a broker. Raises BrokerUnavailable."""
    replies = _ask(settings, "active_queues")
    return tuple(
        WorkerStatus(name, tuple(sorted(queue["name"] for queue in queues))) for name, queues in sorted(replies.items())
    )


def transport_options(settings: Settings) -> dict[str, dict[str, Any]]:
    """How the workers that answer talk to the broker, by worker name; none without one. Raises BrokerUnavailable."""
    replies = _ask(settings, "conf")
    return {name: dict(conf.get("broker_transport_options") or {}) for name, conf in replies.items()}


def _ask(settings: Settings, verb: str) -> dict[str, Any]:
    if settings.redis_url is None:
        return {}
    import redis
    from celery import Celery
    from kombu.exceptions import OperationalError

    url = settings.redis_url.get_secret_value()
    app = Celery(broker=url, set_as_current=False)
    bounded = {"socket_timeout": 2 * REPLY_SECONDS, "socket_connect_timeout": REPLY_SECONDS}
    app.conf.broker_transport_options = bounded
    try:
        with app.connection_for_read() as connection:
            inspect = app.control.inspect(timeout=REPLY_SECONDS, connection=connection)
            replies: dict[str, Any] = getattr(inspect, verb)() or {}
            return replies
    except (OperationalError, OSError, redis.RedisError) as error:
        raise _silent(url, error) from error


def _silent(url: str, error: Exception) -> BrokerUnavailable:
    from ww_workers import failures

    return BrokerUnavailable(
        f"the broker {mask(url)} does not answer: {failures.line(error)}", hint=failures.hint(error)
    )
