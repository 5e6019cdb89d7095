"""The composition root: from settings to the stores, the model and everything that is built on them."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ww_core.buffers import Buffers
from ww_core.config import Settings
from ww_core.errors import StoreUnavailable
from ww_core.forks import immortal
from ww_core.hooks import Hooks, process_hooks
from ww_core.models import Vector
from ww_core.observability.metrics import Metrics, process_metrics
from ww_core.observability.summary import CACHE_HITS, CACHE_TOTAL, POOL_UTIL
from ww_core.stores.ports import Doorbell, GraphStore, VectorStore

if TYPE_CHECKING:
    from ww_core.consolidation.service import Consolidator
    from ww_core.embedding import EmbeddingService
    from ww_core.embedding.remote import RemoteQueries
    from ww_core.embedding.sparse import SparseEncoder
    from ww_core.ingest.core import Ingest
    from ww_core.observability.publish import Board, Publisher
    from ww_core.recall.service import Recaller
    from ww_core.recall.strengthening import Strengthener

log = logging.getLogger(__name__)

GRAPH_FILE = "graph.sqlite3"
"""Of the namespace ``ww``; any other has ``graph-NAMESPACE.sqlite3``, as each has its own vectors."""
METRICS_DIRECTORY = "metrics"

T = TypeVar("T")


class _Closes(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=_Closes)


class Silent:
    """A doorbell that nobody hears: the sweep finds what was stored."""

    def ring(self) -> None:
        return None

    def close(self) -> None:
        return None


class Shared:
    """What several deployments of one process use together, opened once and closed with its last user."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[Hashable, Any] = {}
        self._users: dict[Hashable, set[int]] = {}

    def use(self, key: Hashable, user: int, make: Callable[[], C]) -> C:
        """The resource of that key, made where there is none."""
        with self._lock:
            if key not in self._open:
                self._open[key] = make()
            self._users.setdefault(key, set()).add(user)
            resource: C = self._open[key]
            return resource

    def leave(self, user: int) -> list[_Closes]:
        """Take the user away from everything; what nobody uses any longer, for the caller to close."""
        idle = []
        with self._lock:
            for key, users in list(self._users.items()):
                users.discard(user)
                if not users:
                    idle.append(self._open.pop(key))
                    del self._users[key]
        return idle


class Deployment:
    """Everything that one Settings describes, opened lazily, in this process.

    Graph and vectors are each chosen by their own setting: ``neo4j_uri`` and ``qdrant_url``, else the embedded ones in
    ``data_dir``. Deployments of one process that mean the same store, model or buffers share them. Thread-safe; after
    a fork everything is opened anew in the child.
    """

    _registry: ClassVar[dict[Settings, Deployment]] = {}
    _registry_lock: ClassVar[threading.RLock] = threading.RLock()
    _all: ClassVar[weakref.WeakSet[Deployment]] = weakref.WeakSet()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ask_query: Callable[[str], Vector] | None = None
        """Embeds a query elsewhere, or raises Unavailable: set by the runtime where ``embedding_mode`` is remote."""
        self.doorbell: Doorbell = Silent()
        """Replaced by the runtime that knows who listens."""
        self._lock = threading.RLock()
        self._holders = 0
        Deployment._all.add(self)
        self.metrics.errors.resize(settings.error_history_size)
        if settings.trace_sample:
            from ww_core.observability.tracing import process_tracing

            process_tracing().enable(settings.trace_sample)

    # -- one per process and settings

    @classmethod
    def of(cls, settings: Settings) -> Deployment:
        """The process's deployment of these settings."""
        with cls._registry_lock:
            found = cls._registry.get(settings)
            if found is None:
                found = cls._registry[settings] = cls(settings)
            return found

    def acquire(self) -> Deployment:
        """Say that somebody needs this deployment open; every call is answered by one ``release``."""
        with self._registry_lock:
            self._holders += 1
        return self

    def release(self) -> bool:
        """Undo one ``acquire``; true where nobody holds the deployment any longer, so that it may be closed."""
        with self._registry_lock:
            self._holders = max(self._holders - 1, 0)
            return self._holders == 0

    def close(self) -> None:
        """Close what no other deployment uses. The deployment opens again by itself when it is used again."""
        with self._registry_lock:
            if self._registry.get(self.settings) is self:
                del self._registry[self.settings]
        strengthener: Strengthener | None = self.__dict__.pop("_strengthener", None)
        if strengthener is not None:  # it still writes
            strengthener.close()
        with self._lock:
            for name in _OPENED:
                self.__dict__.pop(name, None)
            if (publisher := self.__dict__.pop("_publisher", None)) is not None:
                publisher.close()
            for probe, read in self.__dict__.pop("_probes", {}).items():
                self.metrics.drop_probe(probe, read)
            for meter, total in self.__dict__.pop("_meters", {}).items():
                self.metrics.drop_meter(meter, total)
            for resource in _shared.leave(id(self)):
                resource.close()

    # -- who and where

    @cached_property
    def identity(self) -> tuple[Hashable, Hashable]:
        """Which graph and which vectors are meant; equal for deployments that share all their data."""
        return (self._graph_key, self._vectors_key)

    @property
    def embedded_graph(self) -> bool:
        return self.settings.neo4j_uri is None

    @property
    def embedded_vectors(self) -> bool:
        return self.settings.qdrant_url is None

    @cached_property
    def _graph_key(self) -> Hashable:
        s = self.settings
        if s.neo4j_uri is None:
            return ("sqlite", str(s.data_dir), s.namespace)
        return (
            *("neo4j", s.neo4j_uri, s.neo4j_user, s.neo4j_password, s.neo4j_database, s.namespace),
            *(s.neo4j_pool_size, s.neo4j_max_transaction_retry, s.neo4j_acquisition_timeout),
        )

    @cached_property
    def _vectors_key(self) -> Hashable:
        s = self.settings
        if s.qdrant_url is None:
            return ("edge", str(s.data_dir), s.namespace, s.archive_cold)
        return (
            *("qdrant", s.qdrant_url, s.qdrant_api_key, s.namespace, s.embedding_model),
            *(s.qdrant_timeout, s.qdrant_grpc, s.qdrant_prefer_grpc, s.qdrant_grpc_port, s.qdrant_pool_size),
            *(s.qdrant_shard_number, s.qdrant_replication_factor, s.qdrant_write_consistency),
            *(s.qdrant_on_disk, s.qdrant_quantization, s.qdrant_session_sharding, s.archive_cold),
        )

    def data_dir(self) -> Path:
        """The data directory, made (mode 0700) where it is absent. Raises StoreUnavailable."""
        path = self.settings.data_dir
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(
                f"data directory {path} cannot be made: {error.strerror or error}",
                hint="choose another with --data-dir or the setting data_dir",
            ) from error
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            raise StoreUnavailable(
                f"data directory {path} cannot be read and written by this user",
                hint="change its permissions, or choose another with --data-dir or the setting data_dir",
            )
        return path

    # -- the parts

    def _once(self, name: str, make: Callable[[], T]) -> T:
        found: T | None = self.__dict__.get(name)
        if found is None:
            with self._lock:
                found = self.__dict__.get(name)
                if found is None:
                    found = self.__dict__[name] = make()
        return found

    @property
    def metrics(self) -> Metrics:
        return process_metrics()

    @property
    def hooks(self) -> Hooks:
        return process_hooks()

    @property
    def clock(self) -> Callable[[], datetime]:
        return _now

    @property
    def graph(self) -> GraphStore:
        return self._once("_graph", lambda: _shared.use(self._graph_key, id(self), self._open_graph))

    @property
    def vectors(self) -> VectorStore:
        return self._once("_vectors", lambda: _shared.use(self._vectors_key, id(self), self._open_vectors))

    @property
    def embedding(self) -> EmbeddingService:
        return self._once("_embedding", self._use_embedding)

    @property
    def sparse(self) -> SparseEncoder:
        return self._once("_sparse", self._open_sparse)

    @property
    def buffers(self) -> Buffers:
        """Shared by the deployments of one graph store in this process that have the same sizes."""
        s = self.settings
        sizes = (s.working_memory_size, s.ca1_buffer_size, s.episode_buffer_size)
        return self._once("_buffers", lambda: _buffers_of((self._graph_key, sizes), *sizes))

    @property
    def ingest(self) -> Ingest:
        return self._once("_ingest", self._make_ingest)

    @property
    def recaller(self) -> Recaller:
        return self._once("_recaller", self._make_recaller)

    @property
    def consolidator(self) -> Consolidator:
        return self._once("_consolidator", self._make_consolidator)

    @property
    def strengthener(self) -> Strengthener:
        """Takes down what is recalled."""
        return self._once("_strengthener", self._make_strengthener)

    @property
    def board(self) -> Board:
        """Where the processes of this deployment publish their figures: Redis, else files beside the stores."""
        from ww_core.observability.publish import FileBoard, RedisBoard

        url = self.settings.redis_url
        if url is None:
            return FileBoard(self.data_dir() / METRICS_DIRECTORY)
        from redis import Redis

        client = Redis.from_url(url.get_secret_value(), socket_timeout=1, socket_connect_timeout=1)
        return RedisBoard(client, self.settings.namespace)

    def publish(self) -> None:
        """Publish this process's figures every few seconds from now on."""
        self._once("_publisher", self._start_publisher)

    def watch_backlog(self) -> None:
        """Measure and publish from now on also what the graph store holds in each state, and its oldest pending row."""
        from ww_core.observability.backlog import Backlog

        for name, read in Backlog(self.graph).probes().items():
            self._probe(name, read)

    def _start_publisher(self) -> Publisher:
        from ww_core.observability.publish import Publisher

        publisher = Publisher(self.metrics, self.board)
        publisher.start()
        return publisher

    def forget(self, episode_ids: Sequence[str], *, session_id: str | None, contents: Sequence[str] | None) -> None:
        """Drop erased episodes from the buffers and caches of this process; ``contents`` None: any text may be erased.

        Caches of other processes let go of them by age (``embedding_cache_ttl``) and never answer with them.
        """
        self.buffers.forget(episode_ids, session_id=session_id)
        service: EmbeddingService | None = self.__dict__.get("_embedding")
        if service is not None:
            service.forget(contents)
        recaller: Recaller | None = self.__dict__.get("_recaller")
        if recaller is not None:
            recaller.forget()

    def _open_graph(self) -> GraphStore:
        if self.embedded_graph:
            from ww_core.stores.embedded.graph import SqliteGraphStore

            namespace = self.settings.namespace
            return SqliteGraphStore(
                self.data_dir() / (GRAPH_FILE if namespace == "ww" else f"graph-{namespace}.sqlite3")
            )
        from ww_core.stores.servers.neo4j import Neo4jGraphStore

        store = Neo4jGraphStore(self.settings)
        self._probe(POOL_UTIL, lambda: store.pool_utilisation)
        return store

    def _open_vectors(self) -> VectorStore:
        if self.embedded_vectors:
            from ww_core.stores.embedded.vectors import EdgeVectorStore

            return EdgeVectorStore.open(
                self.data_dir(), namespace=self.settings.namespace, archive_cold=self.settings.archive_cold
            )
        from ww_core.stores.servers.qdrant import QdrantVectorStore

        return QdrantVectorStore(self.settings)

    def _use_embedding(self) -> EmbeddingService:
        from ww_core.embedding import EmbeddingService

        s = self.settings
        key = (
            *("embedding", s.embedding_model, s.embedding_device, s.embedding_batch_size, s.embedding_fp16),
            *(s.embedding_threads, s.embedding_cache_size, s.embedding_cache_ttl, s.embedding_mode, s.redis_url),
        )
        service = _shared.use(key, id(self), lambda: EmbeddingService(s))
        self._meter(CACHE_HITS, lambda: int(service.cache_stats()["hits"]))
        self._meter(CACHE_TOTAL, lambda: int(service.cache_stats()["total"]))
        return service

    def _probe(self, name: str, read: Callable[[], float]) -> None:
        self.__dict__.setdefault("_probes", {})[name] = read
        self.metrics.probe(name, read)

    def _meter(self, name: str, read: Callable[[], int]) -> None:
        self.__dict__.setdefault("_meters", {})[name] = read
        self.metrics.meter(name, read)

    def _open_sparse(self) -> SparseEncoder:
        from ww_core.embedding.sparse import SparseEncoder

        return SparseEncoder()

    def _make_ingest(self) -> Ingest:
        from ww_core.ingest.core import Ingest

        return Ingest(
            self.graph,
            hooks=self.hooks,
            metrics=self.metrics,
            buffers=self.buffers,
            ring=lambda: self.doorbell.ring(),
            clock=self.clock,
        )

    def _make_recaller(self) -> Recaller:
        from ww_core.recall.service import Recaller

        embedding = self.embedding if self.ask_query is None else self._remote_queries(self.ask_query)
        return Recaller(self.graph, self.vectors, embedding, self.settings, self.hooks, self.metrics, self.buffers.ca1)

    def _make_strengthener(self) -> Strengthener:
        from ww_core.recall.strengthening import Strengthener

        return Strengthener(lambda: self.graph, self.clock)

    def _remote_queries(self, ask: Callable[[str], Vector]) -> RemoteQueries:
        from ww_core.embedding.remote import RemoteQueries

        s = self.settings
        return RemoteQueries(ask, cache_size=s.embedding_cache_size, cache_ttl=s.embedding_cache_ttl)

    def _make_consolidator(self) -> Consolidator:
        from ww_core.consolidation.service import Consolidator

        return Consolidator(self.graph, self.vectors, self.settings, self.hooks, self.metrics)


_OPENED = ("_graph", "_vectors", "_embedding", "_sparse", "_buffers", "_ingest", "_recaller", "_consolidator")

_shared = Shared()
_buffers: weakref.WeakValueDictionary[Hashable, Buffers] = weakref.WeakValueDictionary()
_buffers_lock = threading.Lock()


def _now() -> datetime:
    return datetime.now(UTC)


def _buffers_of(key: Hashable, working_memory: int, ca1: int, episode_buffer: int) -> Buffers:
    with _buffers_lock:
        found = _buffers.get(key)
        if found is None:
            found = _buffers[key] = Buffers(working_memory=working_memory, ca1=ca1, episode_buffer=episode_buffer)
        return found


def _reopen_in_child() -> None:
    # SQLite connections, sockets and shards belong to the parent; locks may have been held by a thread that does not
    # exist here.
    global _shared, _buffers_lock
    immortal(_shared)
    _shared = Shared()
    _buffers_lock = threading.Lock()
    _buffers.clear()
    Deployment._registry_lock = threading.RLock()
    for deployment in Deployment._all:
        deployment._lock = threading.RLock()
        deployment._holders = 0
        deployment.doorbell, deployment.ask_query = Silent(), None
        for name in (*_OPENED, "_strengthener", "_probes", "_meters", "_publisher"):
            immortal(deployment.__dict__.pop(name, None))


os.register_at_fork(after_in_child=_reopen_in_child)
