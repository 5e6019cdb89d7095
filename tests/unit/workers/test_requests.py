"""What a worker answers about the tasks that it holds: names and sizes, never a text."""

from __future__ import annotations

from kombu import Connection, Queue

from ww_workers.requests import QuietRequest
from ww_workers.tasks import app, store


def test_nobody_who_inspects_a_worker_sees_a_text() -> None:
    with Connection("memory://") as connection:
        queue = Queue("ww")
        fields = {"content": "the safe opens with 4711", "session_id": "ops"}
        connection.Producer().publish(
            [[], fields, {}], routing_key="ww", declare=[queue], headers={"task": "ww.store", "id": "a"}
        )
        message = queue(connection.default_channel).get(no_ack=True)
        told = QuietRequest(message, app=app, task=store).info()
    assert "4711" not in repr(told)
    assert "session_id='ops'" in told["kwargs"]
    assert "<24 characters>" in told["kwargs"]
