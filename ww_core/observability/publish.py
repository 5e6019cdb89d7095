"""The figures of all processes of a deployment: each publishes its own every few seconds, anybody may merge them."""

from __future__ import annotations

import atexit
import json
import logging
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ww_core.errors import BrokerUnavailable
from ww_core.masking import mask
from ww_core.observability.metrics import WINDOW_SECONDS, Metrics, Snapshot
from ww_core.observability.summary import measured, summarise

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two publications of a process."""
GAUGES_LIVE = 15.0
"""Seconds after which the gauges of a process that publishes no longer count; its latencies leave with the window."""

UNFINISHED = ".new"
"""Ends the name of a file that is being written."""

_name: str | None = None


def process_name() -> str:
    """This process among all that publish."""
    global _name
    if _name is None:
        _name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return _name


def _rename_in_child() -> None:
    global _name
    _name = None


os.register_at_fork(after_in_child=_rename_in_child)


@dataclass(frozen=True, slots=True)
class Publication:
    """What a process put on a board, ``age`` seconds ago by the board's own clock: those of the hosts may differ."""

    text: str
    age: float


class Board(Protocol):
    """Where the processes of a deployment put their figures."""

    def put(self, name: str, text: str) -> None: ...

    def read(self) -> list[Publication]:
        """What was put within the window."""


class FileBoard:
    """One file per process in a directory: for the processes of one machine. ``clock`` is the one of its files."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    def put(self, name: str, text: str) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=self._directory, prefix=".", suffix=UNFINISHED)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(path, self._directory / f"{name}.json")

    def read(self) -> list[Publication]:
        found = []
        for path in self._directory.glob("*.json"):
            try:
                age = self._clock() - path.stat().st_mtime
                if age > WINDOW_SECONDS:
                    path.unlink(missing_ok=True)
                else:
                    found.append(Publication(path.read_text(encoding="utf-8", errors="replace"), max(0.0, age)))
            except OSError:  # another process tidied up at the same moment
                continue
        self._tidy()
        return found

    def _tidy(self) -> None:
        """Remove what a process left that was killed while it wrote."""
        for path in self._directory.glob(f".*{UNFINISHED}"):
            with suppress(OSError):
                if self._clock() - path.stat().st_mtime > WINDOW_SECONDS:
                    path.unlink()


class RedisBoard:
    """One key per process, gone with the window: for deployments over several machines. What is left of a key's time
    says how old it is."""

    def __init__(self, client: Redis, namespace: str) -> None:
        self._client = client
        self._prefix = f"{namespace}:metrics:"

    def put(self, name: str, text: str) -> None:
        self._client.set(self._prefix + name, text, ex=int(WINDOW_SECONDS))

    def read(self) -> list[Publication]:
        """Raises BrokerUnavailable."""
        from redis import RedisError

        try:
            keys = list(self._client.scan_iter(match=f"{self._prefix}*", count=1000))
            values: list[Any] = self._client.mget(keys) if keys else []
            asking = self._client.pipeline(transaction=False)
            for key in keys:
                asking.pttl(key)
            left: list[int] = asking.execute() if keys else []
        except RedisError as error:
            raise BrokerUnavailable(
                f"the figures of the other processes cannot be read from the broker: {mask(str(error))}",
                hint="is Redis running, and redis_url right?",
            ) from error
        return [
            Publication(value.decode() if isinstance(value, bytes) else str(value), WINDOW_SECONDS - ms / 1000)
            for value, ms in zip(values, left, strict=True)
            if value is not None and ms > 0  # it may have gone in between
        ]


class Publisher:
    """Publishes this process's figures on a daemon thread until it is closed, and once more then."""

    def __init__(self, metrics: Metrics, board: Board, *, every: float = EVERY) -> None:
        self._metrics = metrics
        self._board = board
        self._every = every
        self._closed = threading.Event()
        self._name = process_name()

    def start(self) -> None:
        threading.Thread(target=self._run, name="ww-metrics", daemon=True).start()
        atexit.register(self.close)

    def close(self) -> None:
        atexit.unregister(self.close)
        if not self._closed.is_set() and self._name == process_name():
            self._closed.set()
            self.publish()

    def publish(self) -> None:
        """Publish now, where anything was measured; a board that cannot be reached costs only the figures."""
        figures = self._metrics.dump()
        if not measured(figures):
            return
        try:
            self._board.put(self._name, json.dumps({"name": self._name, **figures}, separators=(",", ":")))
        except Exception as error:  # files, Redis and their drivers fail in many ways; measuring must break nothing
            log.debug("figures not published: %s", error, extra={"action": "metrics.publish"})

    def _run(self) -> None:
        while not self._closed.wait(self._every):
            self.publish()


def deployment_snapshot(metrics: Metrics, board: Board) -> Snapshot:
    """The figures of all processes that published within the window, this one as it is now."""
    dumps: list[Mapping[str, Any]] = [metrics.dump()]
    for publication in board.read():
        dump = _figures(publication.text)
        if dump is not None and dump["name"] != process_name():
            dumps.append(_aged(dump, publication.age))
    return summarise(dumps)


def _figures(text: str) -> Mapping[str, Any] | None:
    """None where they are not those of a process of today: a file that a crash cut short, or of an earlier version."""
    try:
        dump = json.loads(text)
    except ValueError:
        return None
    return dump if isinstance(dump, dict) and {"name", "slices", "gauges"} <= dump.keys() else None


def _aged(dump: Mapping[str, Any], age: float) -> Mapping[str, Any]:
    """What is left of it ``age`` seconds after it was published."""
    slices = [piece for piece in dump["slices"] if piece["leaves"] > age]
    return {**dump, "slices": slices, "gauges": dump["gauges"] if age <= GAUGES_LIVE else {}}
