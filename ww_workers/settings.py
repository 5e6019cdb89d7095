"""Celery's configuration, made from Settings. Each value that is not Celery's default says why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from kombu.entity import Exchange, Queue

from ww_core.config import Settings
from ww_core.maintenance.fading import DECAY_SECONDS
from ww_core.stores.ports import Queue as Name

VISIBILITY_SECONDS = 60
"""After this long without renewal a message is delivered again; 60 s is the least that is safe here."""
RENEWAL_SECONDS = 15
"""How often a worker renews what it holds: four chances within the visibility timeout."""
SOCKET_SECONDS = 5
"""Bound of one broker call of a worker; applications ring with 1 s (see doorbell)."""
SWEEP_SECONDS = 30
SOFT_SHUTDOWN_SECONDS = 20
"""How long tasks may take to end once they are told; a drain takes a second or two (see ending)."""
HARD_LIMIT_SECONDS = 120
"""Of a task that works for 15 s and then rings again; the soft limit comes 30 s earlier."""
VERIFY_LIMIT_SECONDS = 6 * 3600
BEAT_TICK = "beat.tick"
"""Fact in the graph store: when a message of beat's was last worked on, ISO 8601."""
BEAT_HEADER = "ww_beat"
UNACKED = "ww.unacked"
"""Our own place for delivered messages: in kombu's common one, other applications' messages would be delivered again
after our visibility timeout instead of theirs."""


def celery_settings(settings: Settings) -> dict[str, Any]:
    """The configuration of the app ``ww`` for these settings, in Celery's lower-case names."""
    broker = settings.redis_url.get_secret_value() if settings.redis_url else "memory://localhost"
    transport = {
        "visibility_timeout": VISIBILITY_SECONDS,
        "unacked_key": UNACKED,
        "unacked_index_key": f"{UNACKED}_index",
        "unacked_mutex_key": f"{UNACKED}_mutex",
        # kombu's own figures (10 and 10) deliver a lost message again only after 93 s.
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "socket_timeout": SOCKET_SECONDS,
        "socket_connect_timeout": SOCKET_SECONDS,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
    own = settings.consolidation_time_limit + 60  # a run ends itself, and says so, before Celery ends it
    return {
        "broker_url": broker,
        "result_backend": broker if settings.redis_url else "cache+memory://",
        "broker_transport_options": transport,
        "broker_connection_retry_on_startup": True,
        # Celery gives up after 100 tries, 48 minutes, and its worker ends.
        "broker_connection_max_retries": None,
        "redis_socket_timeout": SOCKET_SECONDS,
        "redis_socket_connect_timeout": SOCKET_SECONDS,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": True,
        "result_expires": timedelta(seconds=settings.result_expires),
        # JSON only: a message is data, never code.
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "enable_utc": True,
        "timezone": "UTC",
        # A declared queue per class of work; never Celery's own default queue, which other applications share.
        "task_queues": [Queue(name.value, Exchange(name.value), routing_key=name.value) for name in Name],
        "task_create_missing_queues": False,
        "task_default_queue": Name.MAINTAIN.value,
        "task_default_exchange": Name.MAINTAIN.value,
        "task_default_exchange_type": "direct",
        "task_default_routing_key": Name.MAINTAIN.value,
        "task_routes": {
            "ww.embed_pending": {"queue": Name.EMBED.value, "routing_key": Name.EMBED.value},
            "ww.embed_query": {"queue": Name.QUERY.value, "routing_key": Name.QUERY.value},
        },
        "task_annotations": {
            "ww.consolidate": {"soft_time_limit": own, "time_limit": own + 60},
            "ww.verify": {"soft_time_limit": VERIFY_LIMIT_SECONDS, "time_limit": VERIFY_LIMIT_SECONDS + 60},
        },
        # Without a broker a task called by delay runs at once, in the caller's thread.
        "task_always_eager": settings.redis_url is None,
        # The message is gone only after the work is done; work that dies with its child comes back through its lease,
        # not through the broker, which would hand a killer to one worker after another.
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_consumer": "ww_workers.consumer:CarefulConsumer",
        # With broker and results on one Redis this would lose the task that it cancels.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": SOFT_SHUTDOWN_SECONDS,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_proc_alive_timeout": 120,  # the model loads before the first task
        "worker_concurrency": 2,  # each child holds a model; -c says otherwise
        "worker_send_task_events": True,  # Flower
        "task_send_sent_event": True,
        "task_track_started": True,
        "task_ignore_result": True,  # kept only where the contract says so, task by task
        "task_store_errors_even_if_ignored": False,
        "task_time_limit": HARD_LIMIT_SECONDS,
        "task_soft_time_limit": HARD_LIMIT_SECONDS - 30,
        "worker_hijack_root_logger": False,
        "beat_schedule": beat_schedule(settings),
        "beat_max_loop_interval": 5,
        "beat_enable_remote_control": True,
    }


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """What beat rings for. Every message expires within its own interval, so a beat that slept rings once."""
    interval = settings.consolidation_interval
    return {
        "consolidate what is due": _every("ww.consolidate_due", interval),
        "sweep": _every("ww.sweep", SWEEP_SECONDS),
        "decay": _every("ww.decay", DECAY_SECONDS),
        "alerts": _every("ww.alerts", settings.alert_interval),
    }


def _every(task: str, seconds: float) -> dict[str, Any]:
    return {
        "task": task,
        "schedule": seconds,
        "options": {"expires": max(seconds * 0.9, 1.0), "headers": {BEAT_HEADER: True}},
    }
