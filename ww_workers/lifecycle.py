"""What a worker does besides tasks: checks at start, a warm model in every child, and sweeps.

The parent process of a worker opens no store: a child may own the vectors, a parent never does.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery import signals

from ww_core.config import Settings
from ww_core.errors import WorldWeaverError
from ww_core.stores.ports import Queue
from ww_workers import ending, process
from ww_workers.scrape import serve
from ww_workers.settings import BEAT_HEADER, RENEWAL_SECONDS, SWEEP_SECONDS, VISIBILITY_SECONDS

if TYPE_CHECKING:
    from ww_workers.doorbell import RedisDoorbell

log = logging.getLogger(__name__)

QUEUES_VARIABLE = "WW_WORKER_QUEUES"
CHILDREN_VARIABLE = "WW_WORKER_CHILDREN"
"""Set by the parent for its children, however they are started."""
SWEEPING_QUEUES = (Queue.MAINTAIN, Queue.EMBED, Queue.CONSOLIDATE, Queue.QUERY)
"""A worker sweeps on the first of these that it consumes: recovery needs no particular pool, and queries wait last."""

FIRST_TICK_EXPIRES_SECONDS = 300
"""Workers that start together with beat need a while to load their model."""
EMBEDDING_NICE = 10
"""How much less urgent than anything else children that only embed are: a query, or a store, is done in between."""


def install() -> None:
    """Do all this in every worker of this process."""
    signals.beat_init.connect(_first_tick, weak=False, dispatch_uid="ww-first-tick")
    signals.celeryd_after_setup.connect(_set_up, weak=False, dispatch_uid="ww-set-up")
    signals.worker_ready.connect(_ready, weak=False, dispatch_uid="ww-ready")
    signals.worker_process_init.connect(_enter_child, weak=False, dispatch_uid="ww-enter")
    signals.worker_process_shutdown.connect(_leave_child, weak=False, dispatch_uid="ww-leave")


def consumed() -> frozenset[Queue]:
    """The queues that this worker consumes."""
    names = os.environ.get(QUEUES_VARIABLE, "").split(",")
    return frozenset(queue for queue in Queue if queue.value in names)


# -- in the parent


def _set_up(sender: str, instance: Any, **_: object) -> None:
    os.environ[QUEUES_VARIABLE] = ",".join(instance.app.amqp.queues.consume_from)
    os.environ[CHILDREN_VARIABLE] = str(instance.concurrency)


def _ready(sender: Any, **_: object) -> None:
    settings = Settings()
    for line in problems(settings, os.environ):
        log.warning("%s", line, extra={"action": "worker.check"})
    serve(settings)
    timer = getattr(sender, "timer", None)
    if timer is not None:
        _sweep(sender, first=True)
        timer.call_repeatedly(SWEEP_SECONDS * random.uniform(0.9, 1.1), lambda: _sweep(sender))


def _sweep(worker: Any, *, first: bool = False) -> None:
    bell: RedisDoorbell | None = getattr(worker, "ww_sweep_bell", None)
    if bell is None:
        from ww_workers.producer import sweep_bell

        queue = next((queue for queue in SWEEPING_QUEUES if queue in consumed()), None)
        settings = Settings()
        if queue is None or settings.redis_url is None:
            return
        bell = worker.ww_sweep_bell = sweep_bell(settings, queue, at_once=first)
    bell.ring()


def _first_tick(sender: Any, **_: object) -> None:
    """Ring when beat starts: its own first turn is half a minute away, and the doctor asks whether it ticks."""
    from ww_workers.producer import BROKER_ERRORS

    try:
        sender.app.send_task(
            "ww.sweep",
            queue=Queue.MAINTAIN.value,
            headers={BEAT_HEADER: True},
            expires=FIRST_TICK_EXPIRES_SECONDS,
            retry=False,
        )
    except BROKER_ERRORS as error:
        log.warning("beat could not ring at its start: %s", error, extra={"action": "beat.first_tick"})


def problems(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """What is wrong with how this worker was started, one line each."""
    found = []
    if settings.redis_url is None:
        found.append("redis_url is not set: this worker has no broker (set T4DM_REDIS_URL)")
    if environ.get("REMAP_SIGTERM") != "SIGQUIT":
        found.append(
            "REMAP_SIGTERM=SIGQUIT is not in the environment: a SIGTERM to the whole process group ends children "
            "before they hand back what they hold (use ww worker)"
        )
    if RENEWAL_SECONDS * 2 > VISIBILITY_SECONDS:
        found.append("messages are renewed too seldom for the visibility timeout")
    return found


# -- in a child


def _enter_child(**_: object) -> None:
    ending.enter_child()
    queues = consumed()
    _share_cores(queues)
    if Queue.EMBED in queues and Queue.QUERY not in queues:
        os.nice(EMBEDDING_NICE)
    try:
        work = process.jobs()
        if Queue.MAINTAIN in queues:
            work.deployment.watch_stores()
        work.deployment.publish()
        work.deployment.graph.ping()
        if queues & {Queue.EMBED, Queue.CONSOLIDATE}:
            work.take_over()  # before the model is loaded: a sibling that is idle has it already
        if ending.stopping():
            return
        if Queue.EMBED in queues:
            work.warm()
        elif Queue.QUERY in queues:
            work.deployment.embedding.warm()
    except WorldWeaverError as error:  # it may mend itself; tasks say so again until it does
        log.error("%s", error, extra={"action": "worker.check"})


def _leave_child(**_: object) -> None:
    process.close()


def _share_cores(queues: frozenset[Queue]) -> None:
    """Children that only calculate share the cores, instead of each starting a thread for every one."""
    if Queue.EMBED in queues or Queue.CONSOLIDATE not in queues:
        return
    from threadpoolctl import threadpool_limits

    children = max(1, int(os.environ.get(CHILDREN_VARIABLE, "1")))
    threads = max(1, (os.cpu_count() or 1) // children)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # libraries that are loaded later
    threadpool_limits(threads)
