"""The faults themselves, each done to a random victim of the scene."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Mapping

import redis
from kombu.exceptions import OperationalError

from ww_core.stores.ports import Queue
from ww_workers.chaos.ledger import Ledger
from ww_workers.chaos.scene import LEASE_SECONDS, Process, Scene
from ww_workers.chaos.texts import text

FROZEN_REDIS_SECONDS = 3.0
FROZEN_WORKER_SECONDS = LEASE_SECONDS + 2
AWAY_SECONDS = (1.0, 6.0)
COPIES = 2


class Faults:
    """Makes faults and counts those that happened. Seeded: the same seed makes the same choices in the same order."""

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self._scene = scene
        self._rng = rng
        self._messages = 0
        self._ledger = Ledger(scene.ledger("messages"))
        self.done: Counter[str] = Counter()
        self._round: list[str] = []

    def next(self) -> str:
        """Make the next fault: every kind once in random order, then again. Its kind, or "" where it was impossible."""
        if not self._round:
            self._round = sorted(kind for kind in KINDS if self._possible(kind))
            self._rng.shuffle(self._round)
        kind = self._round.pop()
        if not KINDS[kind](self):
            return ""
        self.done[kind] += 1
        return kind

    def _possible(self, kind: str) -> bool:
        """Whether the trial has what the fault is done to: vectors on a server have no owner."""
        scene = self._scene
        server = kind.partition("_")[0]
        if server in ("neo4j", "qdrant"):
            return getattr(scene, server) is not None
        return kind != "vector_owner_killed" or scene.qdrant is None

    def close(self) -> None:
        self._ledger.close()

    # -- processes

    def _worker_killed(self) -> bool:
        worker = self._rng.choice(self._scene.workers)
        happened = worker.alive
        worker.kill()
        worker.start()
        return happened

    def _worker_child_killed(self) -> bool:
        """The process that does the work; its parent finds out and makes another."""
        return _kill(self._rng.choice(self._scene.workers).children())

    def _vector_owner_killed(self) -> bool:
        owner = self._scene.owner()
        happened = owner is not None and _kill([owner])
        self._revive_producers()
        return happened

    def _producer_killed(self) -> bool:
        producer = self._rng.choice(self._scene.producers)
        happened = producer.alive
        producer.kill()
        self._revive_producers()
        return happened

    def _worker_frozen(self) -> bool:
        """Past its lease: others take over what it holds, then it wakes and goes on as if nothing had been."""
        worker = self._rng.choice(self._scene.workers)
        happened = worker.alive
        worker.signal(signal.SIGSTOP)
        _wait(FROZEN_WORKER_SECONDS)
        worker.signal(signal.SIGCONT)
        return happened

    def _revive_producers(self) -> None:
        for producer in list(self._scene.producers):
            if not producer.alive:
                self._scene.replace_producer(producer)

    # -- the broker

    def _redis_restarted(self) -> bool:
        self._scene.redis.kill()
        self._scene.redis.start()
        return True

    def _redis_flushed(self) -> bool:
        with self._scene.client() as client, contextlib.suppress(redis.RedisError):
            return bool(client.flushall())
        return False

    def _redis_frozen(self) -> bool:
        self._scene.redis.signal(signal.SIGSTOP)
        _wait(FROZEN_REDIS_SECONDS)
        self._scene.redis.signal(signal.SIGCONT)
        return True

    # -- the record and the vectors, where they are on servers

    def _neo4j_stopped(self) -> bool:
        """Stores fail meanwhile, and say so."""
        return self._stopped(self._scene.neo4j)

    def _neo4j_frozen(self) -> bool:
        return self._frozen(self._scene.neo4j)

    def _qdrant_stopped(self) -> bool:
        """Stores go on meanwhile, and are embedded later."""
        return self._stopped(self._scene.qdrant)

    def _qdrant_frozen(self) -> bool:
        return self._frozen(self._scene.qdrant)

    def _stopped(self, server: Process | None) -> bool:
        """Killed, away for a while, and started again; not before it is up again from the last time."""
        if server is None or not server.up:
            return False
        server.kill()
        _wait(self._rng.uniform(*AWAY_SECONDS))
        server.start()
        return True

    def _frozen(self, server: Process | None) -> bool:
        if server is None or not server.up:
            return False
        server.signal(signal.SIGSTOP)
        _wait(self._rng.uniform(*AWAY_SECONDS))
        server.signal(signal.SIGCONT)
        return True

    # -- messages

    def _delivered_twice(self) -> bool:
        """One call of ``ww.store``, and a wake-up, that arrive twice each."""
        self._messages += 1
        name = f"m-{self._messages}"
        kwargs = {"content": text(name, self._rng), "episode_id": name, "session_id": "chaos-m"}
        self._ledger.write("A", [name])
        return self._send("ww.store", Queue.MAINTAIN, name, kwargs) and self._send(
            "ww.embed_pending", Queue.EMBED, f"e-{name}", {}
        )

    def _poisoned(self) -> bool:
        """A text that no worker can embed comes in by message, as any application might send it."""
        self._messages += 1
        name = f"m-{self._messages}"
        kwargs = {"content": text(name, self._rng, poison=True), "episode_id": name, "session_id": "chaos-m"}
        self._ledger.write("A", [name])
        return self._send("ww.store", Queue.MAINTAIN, name, kwargs, copies=1)

    def _send(
        self, task: str, queue: Queue, task_id: str, kwargs: Mapping[str, object], *, copies: int = COPIES
    ) -> bool:
        from celery import Celery

        app = Celery(broker=self._scene.redis_url, set_as_current=False)
        bounds = {"socket_timeout": 2, "socket_connect_timeout": 2}
        try:
            with app.connection_for_write(transport_options=bounds) as connection:
                for _ in range(copies):
                    app.send_task(
                        task,
                        kwargs=dict(kwargs),
                        queue=queue.value,
                        task_id=task_id,
                        connection=connection,
                        retry=False,
                    )
        except (OperationalError, redis.RedisError, OSError):  # Redis is only just coming up again
            return False
        finally:
            app.close()
        return True


KINDS: Mapping[str, Callable[[Faults], bool]] = {
    "worker_killed": Faults._worker_killed,
    "worker_child_killed": Faults._worker_child_killed,
    "worker_frozen": Faults._worker_frozen,
    "vector_owner_killed": Faults._vector_owner_killed,
    "producer_killed": Faults._producer_killed,
    "redis_restarted": Faults._redis_restarted,
    "redis_flushed": Faults._redis_flushed,
    "redis_frozen": Faults._redis_frozen,
    "neo4j_stopped": Faults._neo4j_stopped,
    "neo4j_frozen": Faults._neo4j_frozen,
    "qdrant_stopped": Faults._qdrant_stopped,
    "qdrant_frozen": Faults._qdrant_frozen,
    "delivered_twice": Faults._delivered_twice,
    "poisoned": Faults._poisoned,
}


def _kill(pids: list[int]) -> bool:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)
