"""Sending tasks to the workers of a deployment, in bounded time, from any process."""

from __future__ import annotations

import logging
import os
from functools import lru_cache
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from ww_core.config import Settings
from ww_core.errors import BrokerUnavailable
from ww_core.masking import mask
from ww_core.models import Run
from ww_core.stores.ports import Queue
from ww_workers import failures
from ww_workers.doorbell import SOCKET_SECONDS, Flag, RedisDoorbell
from ww_workers.settings import SWEEP_SECONDS, celery_settings

BELL_EXPIRES_SECONDS = 300
"""A doorbell that nobody heard for this long is not worth answering: the sweep has rung since."""
BROKER_ERRORS = (redis.RedisError, OperationalError, OSError)
LOST = RuntimeError
"""What Celery raises where the connection for results was lost and cannot be had again."""

log = logging.getLogger(__name__)


def broker_url(settings: Settings) -> str:
    """Raises BrokerUnavailable where there is none."""
    if settings.redis_url is None:
        raise BrokerUnavailable("redis_url is not set, so there is no broker", hint="set T4DM_REDIS_URL")
    return settings.redis_url.get_secret_value()


def producer(settings: Settings) -> Celery:
    """An app that only sends, configured by these settings, which need not be the process's default ones."""
    return _producer(settings, os.getpid())


@lru_cache(maxsize=8)
def _producer(settings: Settings, pid: int) -> Celery:
    values = celery_settings(settings)
    bounded = {"socket_timeout": SOCKET_SECONDS, "socket_connect_timeout": SOCKET_SECONDS}
    values["broker_transport_options"] = {**values["broker_transport_options"], **bounded}
    values["broker_connection_timeout"] = SOCKET_SECONDS
    values["redis_socket_timeout"] = values["redis_socket_connect_timeout"] = SOCKET_SECONDS
    values["redis_retry_on_timeout"] = False
    values["result_backend_transport_options"] = {"retry_policy": {"max_retries": 2, "timeout": 2 * SOCKET_SECONDS}}
    app = Celery("ww", set_as_current=False, loader="app")
    app.conf.update(values)
    return app


def send(
    settings: Settings, task: str, queue: Queue, *, expires: float | None = None, answer: bool = False, **kwargs: Any
) -> Any:
    """Put one task into a queue, without retries; its result handle, of use only where an ``answer`` was asked for.

    Raises one of BROKER_ERRORS.
    """
    shown = ", ".join(f"{key}={value!r}" for key, value in kwargs.items() if key in ("session_id", "run_id", "dry_run"))
    return producer(settings).send_task(
        task,
        kwargs=kwargs,
        queue=queue.value,
        retry=False,
        expires=expires,
        ignore_result=not answer,  # no subscription, which would be one more thing to lose with the broker
        argsrepr="()",
        kwargsrepr=f"{{{shown}}}",
    )


def unavailable(settings: Settings, error: Exception) -> BrokerUnavailable:
    url = mask(broker_url(settings))
    return BrokerUnavailable(f"the broker {url} does not answer: {failures.line(error)}", hint=failures.hint(error))


def embed_flag(settings: Settings) -> Flag:
    return Flag(broker_url(settings), namespace=settings.namespace, name=Queue.EMBED.value)


def embed_bell(settings: Settings) -> RedisDoorbell:
    """Rings for whoever embeds."""
    return RedisDoorbell(
        embed_flag(settings),
        lambda: send(settings, "ww.embed_pending", Queue.EMBED, expires=BELL_EXPIRES_SECONDS),
    )


def sweep_bell(settings: Settings, queue: Queue, *, at_once: bool = False) -> RedisDoorbell:
    """Rings for a sweep, once in a while over all processes however many ring: nobody takes this flag down but a worker
    that starts (``at_once``), because it may come in the place of one that died."""
    flag = Flag(broker_url(settings), namespace=settings.namespace, name="sweep", seconds=SWEEP_SECONDS - 10)
    if at_once:
        flag.clear()
    return RedisDoorbell(flag, lambda: send(settings, "ww.sweep", queue, expires=SWEEP_SECONDS))


class RedisBells:
    """The bells of jobs in a worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.doorbell = embed_bell(settings)

    def embed(self) -> None:
        self.doorbell.ring()

    def consolidate(self, run: Run) -> None:
        """One message for a run in a while, however often it is rung for."""
        settings = self._settings
        flag = Flag(broker_url(settings), namespace=settings.namespace, name=f"run:{run.run_id}")
        try:
            if flag.raise_():
                send(settings, "ww.consolidate", Queue.CONSOLIDATE, session_id=run.session_id, run_id=run.run_id)
        except BROKER_ERRORS as error:
            log.warning("could not ring for a run: %s", type(error).__name__, extra={"action": "bells.consolidate"})
        finally:
            flag.close()

    def close(self) -> None:
        self.doorbell.close()
