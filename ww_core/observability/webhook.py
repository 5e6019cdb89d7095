"""Tell somebody elsewhere that a figure changed its level: one JSON object to one URL, in bounded time."""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict

from ww_core.masking import mask
from ww_core.observability.changes import Change

log = logging.getLogger(__name__)


class Webhook:
    """Posts ``{"namespace": ..., "alerts": [change, ...]}``; any answer below 400 is taken for received."""

    def __init__(self, url: str, *, namespace: str, timeout: float) -> None:
        self._url = url
        self._namespace = namespace
        self._timeout = timeout

    def __call__(self, changes: Sequence[Change]) -> bool:
        """Whether it was received within ``timeout`` seconds; never raises."""
        body = json.dumps({"namespace": self._namespace, "alerts": [asdict(change) for change in changes]}).encode()
        received, late = threading.Event(), threading.Event()
        # On a thread of its own: a socket's timeout starts anew with every byte, and names are resolved without one.
        thread = threading.Thread(target=self._post, args=(body, received, late), name="ww-webhook", daemon=True)
        thread.start()
        thread.join(self._timeout)
        if thread.is_alive():
            late.set()
            log.warning("the alert webhook did not answer in time", extra={"action": "alerts.webhook"})
        return received.is_set()

    def _post(self, body: bytes, received: threading.Event, late: threading.Event) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url, data=body, headers=headers, method="POST")  # noqa: S310 - http(s) only
        try:
            with urllib.request.urlopen(request, timeout=self._timeout):  # noqa: S310 - the setting takes http(s) only
                received.set()
        except (OSError, ValueError) as error:  # refused, timed out, an answer of 400 and above, or no HTTP at all
            if not late.is_set():  # or it is told already
                log.warning("the alert webhook failed: %s", mask(str(error)), extra={"action": "alerts.webhook"})
