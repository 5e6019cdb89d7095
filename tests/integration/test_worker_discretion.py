"""Whatever arrives at a worker, and at whatever level it logs: it goes on, and no text of a message is in its log."""

from __future__ import annotations

import json
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery
from celery.events import EventReceiver
from kombu import Connection, Exchange, Producer

from tests.processes import ROOT, RedisServer, Worker, until
from ww_core.stores.ports import Queue
from ww_workers.settings import UNACKED

QUEUE = Queue.MAINTAIN.value


DEFECTS = """
from ww import hooks
from ww_core.embedding import service
from ww_core.stores.embedded.graph import SqliteGraphStore

def add(self, episodes):
    try:
        int(episodes[0].content)
    except ValueError as error:
        raise LookupError(f"cannot keep {episodes[0].content}") from error

def encode_query(self, text, *, counted=True):
    raise ValueError(text)

@hooks.before_store
def look(episode):
    raise ValueError(episode.content)

SqliteGraphStore.add = add
service.EmbeddingService.encode_query = encode_query
"""


def _raw(redis_url: str, bodies: list[tuple[dict[str, object], bytes, str]]) -> None:
    """Messages as no Celery would send them: headers, body, content type."""
    with Connection(redis_url) as connection:
        producer = Producer(connection.default_channel, exchange=Exchange(QUEUE), routing_key=QUEUE)
        for headers, body, content_type in bodies:
            producer.publish(body, headers=headers, content_type=content_type, content_encoding="utf-8")


def _listen(redis_url: str, events: list[dict[str, object]]) -> None:
    """Keep what workers tell, until two tasks failed."""
    with Celery(broker=redis_url, set_as_current=False).connection() as connection:
        failed = 0

        def keep(event: dict[str, object]) -> None:
            nonlocal failed
            events.append(event)
            failed += event["type"] == "task-failed"
            receiver.should_stop = failed == 2

        receiver = EventReceiver(connection, handlers={"*": keep})
        receiver.capture(limit=None, timeout=120, wakeup=False)


def test_no_message_ends_a_worker_and_no_text_of_one_is_logged(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    mark = f"quagga{uuid4().hex[:8]}"
    text = f"the {mark} escaped"
    worker = start_worker(tmp_path / "data", "-Q", QUEUE, "-c", "1", "-l", "DEBUG")
    sender = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)

    def send(name: str, *args: object, **kwargs: object) -> object:
        return sender.send_task(name, args=args, kwargs=kwargs, queue=QUEUE)

    send("ww.unknown", text, content=text)
    store = {"task": "ww.store", "id": uuid4().hex, "lang": "py", "argsrepr": text, "kwargsrepr": text}
    _raw(
        redis_server.url,
        [
            ({}, json.dumps({"content": text}).encode(), "application/json"),
            ({}, f"{text} is no JSON".encode(), "application/json"),
            ({}, json.dumps([text]).encode(), "application/json"),
            (store, f"{text} is no JSON".encode(), "application/json"),
            (store, text.encode() + b"\xff", "application/json"),
            (store, pickle.dumps(text), "application/x-python-serialize"),
            (store, json.dumps([[text], [text], {}]).encode(), "application/json"),
            (store, json.dumps([[], {"content": text}]).encode(), "application/json"),
            (store, json.dumps([text, {"content": text}, [text]]).encode(), "application/json"),
            (store, json.dumps({"args": text}).encode(), "application/json"),
            (store, b"5", "application/json"),
            ({"task": "ww.store"}, json.dumps([[], {"content": text}, {}]).encode(), "application/json"),
            ({"task": "ww.unknown"}, json.dumps([[], {"content": text}, {}]).encode(), "application/json"),
            ({}, json.dumps({"task": "ww.store", "content": text}).encode(), "application/json"),
            ({}, json.dumps({"task": "ww.unknown", "content": text}).encode(), "application/json"),
        ],
    )
    send("ww.store", content=text, outcome=text)
    send("ww.store", content=text * 5000)
    send("ww.store", content=text, timestamp=text)
    send("ww.store", content=text, **{"note": text})
    send("ww.store", content=[text])
    send("ww.store", text, text, text)
    send("ww.store", content=f"{text} \ud800")
    send("ww.embed_query", text=f"{text} \ud800")
    send("ww.consolidate", session_id=[text])
    kept = send("ww.store", content=text)
    assert kept.get(timeout=90)["state"] == "pending"  # type: ignore[attr-defined]

    def done() -> bool:
        with redis_server.client() as client:
            return not client.llen(QUEUE) and not client.hlen(UNACKED)

    until(done, what=f"every message is taken:\n{worker.output()[-3000:]}")
    worker.terminate()
    log = worker.output()
    assert "(its contents are not logged)" in log
    assert "ww.unknown" in log, "the name of a task is told"
    assert log.count("raised") == 9, "what a task refuses is told"
    assert "Unrecoverable" not in log, "no message ends the worker"
    assert "Pool callback raised" not in log, "nor troubles its pool"
    assert mark not in log, [line for line in log.splitlines() if mark in line]


def test_a_defect_that_quotes_a_text_is_told_by_its_place_and_kind(
    redis_server: RedisServer, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    mark = f"quagga{uuid4().hex[:8]}"
    (tmp_path / "defects.py").write_text(DEFECTS)
    given = {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "T4DM_HOOKS": "defects"}
    worker = start_worker(tmp_path / "data", "-Q", QUEUE, "-c", "1", "-l", "DEBUG", "-E", **given)
    sender = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    events: list[dict[str, object]] = []
    listening = threading.Thread(target=_listen, args=(redis_server.url, events), daemon=True)
    listening.start()
    stored = sender.send_task("ww.store", kwargs={"content": f"the {mark} escaped"}, queue=QUEUE)
    with pytest.raises(LookupError, match=mark):
        stored.get(timeout=90)  # who sent it is told
    asked = sender.send_task("ww.embed_query", kwargs={"text": f"where is the {mark}"}, queue=QUEUE, shadow="ww.other")
    with pytest.raises(ValueError, match=mark):
        asked.get(timeout=90)
    listening.join(30)
    worker.terminate()
    failures = [event["exception"] for event in events if event["type"] == "task-failed"]
    assert failures == [f"{kind} (what it says is in the result)" for kind in ("LookupError", "ValueError")]
    assert mark not in repr(events), "nor does Flower hear of it"
    log = worker.output()
    assert "hook failed: defects.look: ValueError (what it says is not logged)" in log
    assert "raised unexpected: LookupError (what it says is not logged)" in log
    assert "raised unexpected: ValueError (what it says is not logged)" in log
    assert f'File "{tmp_path / "defects.py"}", line 10, in add' in log
    assert mark not in log, [line for line in log.splitlines() if mark in line]
