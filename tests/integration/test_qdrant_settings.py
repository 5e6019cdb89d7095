"""What the settings of the Qdrant adapter change in what is sent, read by a server that only listens and nods."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.contract.vector_stores import MODEL, point
from tests.processes import free_ports
from ww_core.config import Settings
from ww_core.errors import ConfigurationError, StoreUnavailable
from ww_core.stores.servers.qdrant import QdrantVectorStore
from ww_core.stores.servers.qdrant import collection as qdrant_collection

CLUSTER = {
    "status": "enabled",
    "peer_id": 1,
    "peers": {"1": {"uri": "http://127.0.0.1:6335/"}},
    "raft_info": {"term": 1, "commit": 1, "pending_operations": 0, "leader": 1, "role": "Leader", "is_voter": True},
    "consensus_thread_status": {"consensus_thread_status": "working", "last_update": "2026-01-01T00:00:00Z"},
    "message_send_failures": {},
}


class Listener:
    """An HTTP server that records requests and answers as an empty Qdrant would; with key and certificate, by https."""

    def __init__(self, *, certificate: tuple[Path, Path] | None = None) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.asked: list[tuple[str, str]] = []
        """Path and query string of each request."""
        self.collections: list[str] = []
        self.status = 200
        self.version = "1.18.1"
        self.hold: threading.Event | None = None
        listener = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path, _, query = self.path.partition("?")
                listener.asked.append((path, query))
                listener.requests.append((self.command, path, json.loads(body) if body else None))
                listener.headers.append({key.lower(): value for key, value in self.headers.items()})
                if listener.hold is not None:
                    listener.hold.wait(30)
                about = {"title": "qdrant", "version": listener.version}
                nod = {"status": "ok", "time": 0, "result": listener.result(path)}
                text = json.dumps(about if path == "/" else nod).encode()
                self.send_response(listener.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: Any) -> None:
                pass  # a client that gave up waiting

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate[1], certificate[0])
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def result(self, path: str) -> Any:
        if path == "/collections":
            return {"collections": [{"name": name} for name in self.collections]}
        if path == "/cluster":
            return CLUSTER
        if path.endswith("/exists"):
            return {"exists": False}
        if path.endswith("/shards"):
            return {"shard_keys": []} if self.requests[-1][0] == "GET" else True
        if path.endswith(("/points", "/delete", "/index")):
            return {"operation_id": 1, "status": "completed"}
        if path.endswith("/scroll"):
            return {"points": [], "next_page_offset": None}
        return True

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server.server_address[1]}"

    def sent(self, method: str, suffix: str) -> list[Any]:
        return [body for verb, path, body in self.requests if verb == method and path.endswith(suffix)]

    def close(self) -> None:
        if self.hold is not None:
            self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    server = Listener()
    yield server
    server.close()


def created(listener: Listener, **settings: object) -> dict[str, Any]:
    """The body of the request that makes the collection under these settings."""
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False, **settings))
    store.ensure(MODEL)
    store.close()
    (body,) = listener.sent("PUT", f"/collections/ww_{MODEL.digest()}")
    assert isinstance(body, dict)
    return body


def test_defaults_make_one_plain_shard(listener: Listener) -> None:
    body = created(listener)
    assert (body["shard_number"], body["replication_factor"], body["write_consistency_factor"]) == (1, 1, 1)
    assert body.get("quantization_config") is None
    assert body.get("sharding_method") is None
    assert body["vectors"]["content"] | {"hnsw_config": None} == {
        **{"size": 8, "distance": "Cosine", "on_disk": False, "hnsw_config": None},
        **{key: None for key in body["vectors"]["content"] if key not in ("size", "distance", "on_disk")},
    }
    assert body["sparse_vectors"]["bm25"]["modifier"] == "idf"
    assert body["metadata"]["fingerprint"]["model"] == "first-model"


def test_layout_of_a_new_collection(listener: Listener) -> None:
    body = created(
        listener,
        qdrant_shard_number=6,
        qdrant_replication_factor=3,
        qdrant_write_consistency=2,
        qdrant_on_disk=True,
    )
    assert (body["shard_number"], body["replication_factor"], body["write_consistency_factor"]) == (6, 3, 2)
    assert body["vectors"]["context"]["on_disk"] is True


def test_archived_vectors_get_a_collection_that_stays_on_disk(listener: Listener) -> None:
    for archive_cold in (False, True):
        store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False, archive_cold=archive_cold))
        store.ensure(MODEL)
        listener.requests.clear()
        store.upsert([point("old", archived=True)])
        made = listener.sent("PUT", f"/collections/ww_{MODEL.digest()}_cold")
        assert len(made) == archive_cold
        store.close()
    (body,) = made
    assert body["hnsw_config"]["m"] == 0
    assert {body["vectors"][name]["on_disk"] for name in ("content", "context")} == {True}
    assert body["sparse_vectors"]["bm25"]["index"]["on_disk"] is True
    assert body["quantization_config"]["scalar"]["always_ram"] is False
    assert body["on_disk_payload"] is True
    indexes = [row["field_schema"] for row in listener.sent("PUT", "/index")]
    assert {schema["on_disk"] for schema in indexes} == {True}


@pytest.mark.parametrize("kind", ["scalar", "binary"])
def test_quantization(listener: Listener, kind: str) -> None:
    assert list(created(listener, qdrant_quantization=kind)["quantization_config"]) == [kind]


def test_sessions_are_the_tenants(listener: Listener) -> None:
    created(listener)
    indexes = {body["field_name"]: body["field_schema"] for body in listener.sent("PUT", "/index")}
    assert indexes["session"]["is_tenant"] is True
    assert indexes["timestamp"] == "datetime"
    assert {"outcome", "terms", "cells", "state", "episode", "generation"} <= indexes.keys()


def test_session_sharding_keeps_each_session_in_one_shard(listener: Listener) -> None:
    settings = Settings(qdrant_url=listener.url, qdrant_grpc=False, qdrant_session_sharding=True, qdrant_shard_number=4)
    store = QdrantVectorStore(settings)
    store.ensure(MODEL)
    (body,) = listener.sent("PUT", f"/collections/ww_{MODEL.digest()}")
    assert body["sharding_method"] == "custom"
    keys = {body["shard_key"] for body in listener.sent("PUT", "/shards")}
    assert keys == {f"sessions-{n}" for n in range(4)}
    store.upsert([point(f"{session}-{n}", session=session) for session in "abcdefgh" for n in range(3)])
    writes = listener.sent("PUT", "/points")
    homes: dict[str, set[str]] = {}
    for write in writes:
        for row in write["points"]:
            homes.setdefault(row["payload"]["session"], set()).add(write["shard_key"])
    assert len(homes) == 8
    assert all(len(shards) == 1 for shards in homes.values())
    assert len(set.union(*homes.values())) > 1
    store.close()


def test_upsert_is_conditional_on_the_generation(listener: Listener) -> None:
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False))
    store.ensure(MODEL)
    store.upsert([point("a", generation=7)])
    (write,) = listener.sent("PUT", "/points")
    (condition,) = write["update_filter"]["must"]
    assert (condition["key"], condition["range"]["lt"]) == ("generation", 7)
    store.close()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_api_key_is_sent_and_its_refusal_is_a_configuration_error(listener: Listener) -> None:
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False, qdrant_api_key="s3cret"))
    store.ping()
    assert listener.headers[-1]["api-key"] == "s3cret"
    listener.status = 403
    with pytest.raises(ConfigurationError, match="refuses the API key") as caught:
        store.ping()
    assert "s3cret" not in str(caught.value)
    store.close()


@pytest.mark.parametrize("version", ["1.16.0", "1.18.3-dev", "2.0.0", "unknown"])
def test_a_server_of_another_version_than_the_driver_is_taken(listener: Listener, version: str) -> None:
    listener.version = version
    assert created(listener)


def test_a_server_that_is_too_old_is_refused(listener: Listener) -> None:
    listener.version = "1.15.5"
    with pytest.raises(ConfigurationError, match=r"is Qdrant 1\.15\.5.*Qdrant 1\.16 or newer is needed"):
        created(listener)
    assert listener.sent("PUT", "") == [], "it makes nothing there"


def test_timeout_bounds_a_request(listener: Listener) -> None:
    listener.hold = threading.Event()
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False, qdrant_timeout=1))
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match="answering"):
        store.ping()
    assert time.monotonic() - began < 10
    store.close()


def test_pool_size_bounds_the_connections(listener: Listener) -> None:
    listener.hold = threading.Event()
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc=False, qdrant_pool_size=2))
    threads = [threading.Thread(target=store.ping) for _ in range(5)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 10
    while len(listener.requests) < 2 and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    threading.Event().wait(0.2)  # time in which a third request would have come
    assert len(listener.requests) == 2
    listener.hold.set()
    for thread in threads:
        thread.join()
    assert len(listener.requests) == 5
    store.close()


def test_unreachable_server_is_one_line_without_the_password() -> None:
    (port,) = free_ports(1)
    url = f"http://user:hunter2@127.0.0.1:{port}"
    store = QdrantVectorStore(Settings(qdrant_url=url, qdrant_grpc=False))
    with pytest.raises(StoreUnavailable, match="Qdrant at 127") as caught:
        store.count()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    store.close()


def test_grpc_is_used_where_it_is_preferred(listener: Listener) -> None:
    (port,) = free_ports(1)
    store = QdrantVectorStore(Settings(qdrant_url=listener.url, qdrant_grpc_port=port, qdrant_timeout=2))
    with pytest.raises(StoreUnavailable, match=r"UNAVAILABLE|DEADLINE"):
        store.ping()
    assert listener.requests == [], "nothing went over HTTP"
    store.close()


@pytest.mark.parametrize(
    ("url", "port", "expected"),
    [
        ("http://q:6333", None, 6334),
        ("http://q:7000/prefix", None, 7001),
        ("https://q.example", None, 6334),
        ("http://q:6333", 9, 9),
    ],
)
def test_grpc_port(url: str, port: int | None, expected: int) -> None:
    assert qdrant_collection.grpc_port(Settings(qdrant_url=url, qdrant_grpc_port=port)) == expected
