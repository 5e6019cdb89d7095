"""The doorbell over Redis: a coalescing flag and a task message, rung from a thread of its own.

``store`` must never wait for a broker, so ``ring`` only sets an event. The thread sets the flag of the queue with a
time to live and sends one message if the flag was not there. The task removes the flag when it starts, so that an
episode stored after that rings again. A ring that is lost costs time, never an episode: the sweep rings too.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Protocol
from uuid import uuid4

import redis
from kombu.exceptions import OperationalError

from ww_core.stores.ports import Queue

log = logging.getLogger(__name__)

FLAG_SECONDS = 30
"""How long a ring that nobody answered silences the next one."""
SOCKET_SECONDS = 1.0
QUIET_SECONDS = 0.05
"""A burst of stores within this time is one ring."""
RETRY_SECONDS = 2.0


class Sender(Protocol):
    """Puts one message into the queue; raises a connection error where it cannot."""

    def __call__(self) -> object: ...


def flag_key(namespace: str, name: str) -> str:
    """The Redis key of the flag of that name, usually a queue's."""
    return f"{namespace}:doorbell:{name}"


class Flag:
    """At most one unanswered ring per name, over all processes."""

    def __init__(self, url: str, *, namespace: str, name: str = Queue.EMBED.value, seconds: int = FLAG_SECONDS) -> None:
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=SOCKET_SECONDS, socket_connect_timeout=SOCKET_SECONDS, protocol=2
        )
        self._key = flag_key(namespace, name)
        self._seconds = seconds
        self._token = uuid4().hex

    def raise_(self) -> bool:
        """Set the flag; whether it was not set before. Raises redis.RedisError."""
        return bool(self._client.set(self._key, self._token, nx=True, ex=self._seconds))

    def is_own(self) -> bool:
        """Whether it was this object that set the flag, as far as Redis knows. Raises redis.RedisError."""
        return bool(self._client.get(self._key) == self._token.encode())

    def clear(self) -> None:
        """Remove the flag: from now on a store rings again. A broker that cannot be reached is left to the TTL."""
        try:
            self._client.delete(self._key)
        except redis.RedisError as error:
            log.debug("doorbell flag was not cleared: %s", error, extra={"action": "doorbell.clear"})

    def close(self) -> None:
        self._client.close()


class RedisDoorbell:
    """Wakes the embedding workers. Thread-safe; after a fork the thread is started anew by the next ring."""

    def __init__(self, flag: Flag, send: Sender) -> None:
        self._flag, self._send = flag, send
        self._rung = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._doubtful = False
        """The broker did not answer: it may have taken the flag all the same, and nobody sent the message."""

    def ring(self) -> None:
        if self._closed.is_set():
            return
        self._rung.set()
        if self._thread is None or not self._thread.is_alive() or self._pid != os.getpid():
            self._start()

    def close(self) -> None:
        """Send what was rung and stop, within about two socket timeouts."""
        self._closed.set()
        self._rung.set()
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            thread.join(timeout=4 * SOCKET_SECONDS)
        self._flag.close()

    def _start(self) -> None:
        if self._pid != os.getpid():
            self._lock, self._thread, self._pid = threading.Lock(), None, os.getpid()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="ww-doorbell", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while True:
            self._rung.wait()
            closing = self._closed.wait(QUIET_SECONDS)
            self._rung.clear()
            rang = self._deliver()
            if closing:
                return
            if not rang:
                self._rung.set()
                if self._closed.wait(RETRY_SECONDS):
                    return

    def _deliver(self) -> bool:
        try:
            if self._flag.raise_() or (self._doubtful and self._flag.is_own()):
                try:
                    self._send()
                except BaseException:
                    self._flag.clear()  # nobody was told, so the next ring must not be silenced
                    raise
        except (redis.RedisError, OperationalError, OSError) as error:
            log.warning("the broker was not rung: %s", type(error).__name__, extra={"action": "doorbell.ring"})
            self._doubtful = True
            return False
        self._doubtful = False
        return True
