"""Somebody is told of changes, in bounded time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.observability.test_alerts import settings
from ww_core.deployment import Deployment
from ww_core.errors import ConfigurationError
from ww_core.observability.changes import FACT, Change
from ww_core.observability.watch import alert_watch
from ww_core.observability.webhook import Webhook

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Listener:
    """A real HTTP server that answers with ``status``."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.status = 204
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                listener.bodies.append(json.loads(body))
                self.send_response(listener.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return None

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


CHANGE = Change(NOON.isoformat(), "error_rate", "ok", "critical", 0.5, 0.01, 0.05)


def test_a_webhook_gets_the_changes_as_json(listener: Listener) -> None:
    webhook = Webhook(listener.url, namespace="ww", timeout=5)
    assert webhook([CHANGE])
    assert listener.bodies[0]["namespace"] == "ww"
    assert listener.bodies[0]["alerts"][0]["level"] == "critical"
    listener.status = 500
    assert not webhook([CHANGE])


def test_a_webhook_that_never_answers_costs_its_timeout_and_raises_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        assert not Webhook(url, namespace="ww", timeout=0.3)([CHANGE])
        assert time.monotonic() - started < 3
    assert not Webhook(url, namespace="ww", timeout=0.3)([CHANGE])


def test_the_settings_say_who_is_told_and_how_long_that_may_take(tmp_path: Path, listener: Listener) -> None:
    told = Deployment(settings(data_dir=tmp_path, alert_webhook=listener.url))
    told.metrics.reset()
    for _ in range(20):
        told.metrics.observe("recall", 3.0)
    try:
        alert_watch(told).check()
        # other figures of this process may have earned an alert too
        assert "recall_p95" in [change["name"] for change in listener.bodies[0]["alerts"]]
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            kept = Deployment(settings(data_dir=tmp_path, alert_webhook=url, alert_webhook_timeout=0.2))
            kept.graph.put_fact(FACT, json.dumps({"at": NOON.isoformat(), "levels": {}, "history": [], "unsent": []}))
            started = time.monotonic()
            alert_watch(kept).check()
            assert time.monotonic() - started < 3
            kept.close()
    finally:
        told.metrics.reset()
        told.close()


def test_the_webhooks_address_is_a_secret_and_must_be_http() -> None:
    shown = settings(alert_webhook="https://hooks.example.com/T00/secret", alert_webhook_timeout=1).shown()
    assert shown["alert_webhook"] == "***"
    with pytest.raises(ConfigurationError, match="alert_webhook") as refused:
        settings(alert_webhook="file:///etc/passwd")
    assert "passwd" not in str(refused.value)
