"""Keeps a worker's unacknowledged messages from being delivered to another while they are worked on.

Redis has no acknowledgement of its own: kombu puts every delivered message into a sorted set by time and hands
out again what is older than the visibility timeout. A timer of the worker's parent process moves up the time of every
message that the worker holds; in a child it would stand still whenever a task holds the interpreter's lock. Nothing
is wrong without it: a second delivery finds its work claimed or done.
"""

from __future__ import annotations

import logging
from time import time
from typing import Any

from celery.signals import worker_ready
from celery.worker import state

from ww_workers.settings import RENEWAL_SECONDS

log = logging.getLogger(__name__)


def renew(requests: list[Any]) -> int:
    """Move up the delivery time of the messages of these requests; how many there were. Never raises for a lost
    broker: the next round tries again."""
    renewed = 0
    for request in requests:
        message = getattr(request, "message", None)
        channel: Any = getattr(message, "channel", None)
        index = getattr(channel, "unacked_index_key", None)
        if message is None or channel is None or index is None or message.acknowledged:
            continue
        try:
            with channel.conn_or_acquire() as client:
                # XX: a message that was acknowledged meanwhile must not come back.
                client.zadd(index, {message.delivery_tag: time()}, xx=True)
        except (OSError, *channel.connection_errors) as error:
            log.warning("messages could not be renewed: %s", error, extra={"action": "visibility.renew"})
            return renewed
        renewed += 1
    return renewed


def _start(sender: Any, **_: object) -> None:
    timer = getattr(sender, "timer", None)
    if timer is not None:
        timer.call_repeatedly(RENEWAL_SECONDS, lambda: renew(list(state.requests.values())))


def install() -> None:
    """Renew in every worker of this process."""
    worker_ready.connect(_start, weak=False, dispatch_uid="ww-visibility")
