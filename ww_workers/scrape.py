"""The page that Prometheus scrapes from a worker: the figures of the whole deployment, served by the worker's parent.

The parent opens no store: it merges what the processes publish, so it does not matter which worker is scraped, nor how
many children it has.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import WorldWeaverError
from ww_core.masking import mask
from ww_core.observability.metrics import Snapshot, process_metrics
from ww_core.observability.prometheus import CONTENT_TYPE, exposition
from ww_core.observability.publish import deployment_snapshot
from ww_workers.inspection import queue_lengths

log = logging.getLogger(__name__)

PATH = "/metrics"
SOCKET_SECONDS = 10.0
"""How long a client may take to say what it wants."""
ASK_SECONDS = 2.0
"""How long whoever holds the port may take to say whose figures it serves."""
WHOSE = "World-Weaver-Deployment"
"""Header of every answer: a digest of the deployment, by which its workers know each other."""


class Scrape:
    """Serves the figures that ``read`` gives at ``/metrics``, on a daemon thread until ``close``.

    Raises OSError where the port cannot be had.
    """

    def __init__(self, settings: Settings, read: Callable[[], Snapshot], *, address: str, port: int) -> None:
        self._settings = settings
        self._read = read
        scrape, whose = self, _whose(settings)

        class Handler(BaseHTTPRequestHandler):
            timeout = SOCKET_SECONDS

            def do_GET(self) -> None:
                status, body = scrape.answer(self.path)
                self.send_response(status)
                self.send_header("Content-Type", CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.send_header(WHOSE, whose)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return None

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="ww-scrape", daemon=True).start()
        # A child must not hold the port when the parent is gone.
        os.register_at_fork(after_in_child=self._server.socket.close)

    def answer(self, path: str) -> tuple[int, bytes]:
        """HTTP status and body."""
        if path.split("?")[0] != PATH:
            return 404, b"the figures are at /metrics\n"
        try:
            return 200, exposition(self._read(), queues=queue_lengths(self._settings)).encode()
        except WorldWeaverError as error:  # Prometheus sees that the scrape failed, and people why
            return 503, f"{error}\n".encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def serve(settings: Settings) -> Scrape | None:
    """What the settings ask for; None where that is nothing, or another worker of this machine serves already."""
    if settings.metrics_port is None:
        return None
    try:
        read = partial(deployment_snapshot, process_metrics(), Deployment.of(settings).board)
        return Scrape(settings, read, address=settings.metrics_address, port=settings.metrics_port)
    except (OSError, WorldWeaverError) as error:
        where = (settings.metrics_address, settings.metrics_port)
        said = {"action": "scrape.start"}
        if getattr(error, "errno", None) == errno.EADDRINUSE and _served_by_another(settings, *where):
            log.info("figures are served on %s, port %d, by another worker", *where, extra=said)
        else:
            log.warning("figures are not served on %s, port %d: %s", *where, error, extra=said)
        return None


def _served_by_another(settings: Settings, address: str, port: int) -> bool:
    """Whether who holds the port serves the figures of this deployment."""
    asking = HTTPConnection(address, port, timeout=ASK_SECONDS)
    try:
        asking.request("GET", "/")
        return asking.getresponse().getheader(WHOSE) == _whose(settings)
    except (OSError, HTTPException):
        return False
    finally:
        asking.close()


def _whose(settings: Settings) -> str:
    """Equal for workers that serve the same figures: those that share a broker or a data directory, and a namespace."""
    broker = settings.redis_url
    place = str(settings.data_dir) if broker is None else mask(broker.get_secret_value())
    return blake2b(f"{settings.namespace} {place}".encode(), digest_size=16).hexdigest()
