"""What a deployment measures of its parts beside its work, and where its processes publish it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ww_core.config import Settings
from ww_core.deployment.stores import made_data_dir
from ww_core.observability.metrics import process_metrics

if TYPE_CHECKING:
    from ww_core.observability.publish import Board, Publisher

METRICS_DIRECTORY = "metrics"


class Figures:
    """Gauges and totals read from the parts of one deployment, from their opening until ``close``."""

    def __init__(self) -> None:
        self._probes: dict[str, Callable[[], float]] = {}
        self._meters: dict[str, Callable[[], int]] = {}
        self._publisher: Publisher | None = None

    def probe(self, name: str, read: Callable[[], float]) -> None:
        """Read a gauge of that name whenever it is asked for."""
        self._probes[name] = read
        process_metrics().probe(name, read)

    def meter(self, name: str, read: Callable[[], int]) -> None:
        """Count what a total grows by from now on."""
        self._meters[name] = read
        process_metrics().meter(name, read)

    def publish(self, board: Callable[[], Board]) -> None:
        """Publish this process's figures every few seconds from now on."""
        from ww_core.observability.publish import Publisher

        if self._publisher is None:
            publisher = Publisher(process_metrics(), board())
            publisher.start()
            self._publisher = publisher

    def close(self) -> None:
        """Publish no longer, and read the parts no longer; what was counted stays counted."""
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()
        while self._probes:
            process_metrics().drop_probe(*self._probes.popitem())
        while self._meters:
            process_metrics().drop_meter(*self._meters.popitem())


def board_of(settings: Settings) -> Board:
    """Where the processes of these settings publish their figures: Redis, else files beside the stores."""
    from ww_core.observability.publish import FileBoard, RedisBoard

    url = settings.redis_url
    if url is None:
        return FileBoard(made_data_dir(settings) / METRICS_DIRECTORY)
    from redis import Redis

    client = Redis.from_url(url.get_secret_value(), socket_timeout=1, socket_connect_timeout=1)
    return RedisBoard(client, settings.namespace)
