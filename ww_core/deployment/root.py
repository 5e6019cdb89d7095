"""One deployment: everything that one Settings describes, opened when it is first needed."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from ww_core.buffers import Buffers
from ww_core.config import Settings
from ww_core.deployment.figures import Figures, board_of
from ww_core.deployment.shared import Closes, process_shared
from ww_core.deployment.stores import graph_key, made_data_dir, open_graph, open_vectors, update_queue, vectors_key
from ww_core.forks import immortal
from ww_core.hooks import Hooks, process_hooks
from ww_core.models import Vector
from ww_core.observability.metrics import Metrics, process_metrics
from ww_core.observability.summary import CACHE_HITS, CACHE_TOTAL, UPDATE_QUEUE
from ww_core.stores.ports import Doorbell, GraphStore, VectorStore

if TYPE_CHECKING:
    from ww_core.consolidation.service import Consolidator
    from ww_core.embedding import EmbeddingService
    from ww_core.embedding.remote import RemoteQueries
    from ww_core.embedding.sparse import SparseEncoder
    from ww_core.ingest.core import Ingest
    from ww_core.observability.publish import Board
    from ww_core.recall.service import Recaller
    from ww_core.recall.strengthening import Strengthener

T = TypeVar("T")
C = TypeVar("C", bound=Closes)


class Silent:
    """A doorbell that nobody hears: the sweep finds what was stored."""

    def ring(self) -> None:
        return None

    def close(self) -> None:
        return None


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
        self._figures = Figures()
        self._caches: dict[str, Callable[[], Mapping[str, float]]] = {}
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
            self._figures.close()
            with ExitStack() as closing:  # all of them, also where one cannot
                for resource in reversed(process_shared().leave(id(self))):
                    closing.callback(resource.close)

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
        return graph_key(self.settings)

    @cached_property
    def _vectors_key(self) -> Hashable:
        return vectors_key(self.settings)

    def data_dir(self) -> Path:
        """The data directory, made (mode 0700) where it is absent. Raises StoreUnavailable."""
        return made_data_dir(self.settings)

    # -- the parts

    def _once(self, name: str, make: Callable[[], T]) -> T:
        found: T | None = self.__dict__.get(name)
        if found is None:
            with self._lock:
                found = self.__dict__.get(name)
                if found is None:
                    found = self.__dict__[name] = make()
        return found

    def _use(self, key: Hashable, make: Callable[[], C]) -> C:
        return process_shared().use(key, id(self), make)

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
        return self._once("_graph", lambda: self._use(self._graph_key, self._open_graph))

    @property
    def vectors(self) -> VectorStore:
        return self._once("_vectors", lambda: self._use(self._vectors_key, lambda: open_vectors(self.settings)))

    @property
    def embedding(self) -> EmbeddingService:
        return self._once("_embedding", self._use_embedding)

    @property
    def sparse(self) -> SparseEncoder:
        return self._once("_sparse", self._open_sparse)

    @property
    def buffers(self) -> Buffers:
        """Shared by the deployments of one graph store in this process that have the same sizes."""
        return self._once("_buffers", self._use_buffers)

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
        return board_of(self.settings)

    def publish(self) -> None:
        """Publish this process's figures every few seconds from now on."""
        with self._lock:
            self._figures.publish(lambda: self.board)

    def watch_stores(self) -> None:
        """Measure and publish from now on also what the graph store holds in each state, its oldest pending row, what
        consolidation has come to, and what waits in a Qdrant server."""
        from ww_core.observability.stores import backlog, consolidated

        for looks in (backlog(self.graph), consolidated(self.graph)):
            for name, read in looks.probes().items():
                self._figures.probe(name, read)
        if self.settings.qdrant_url is not None:
            self._figures.probe(UPDATE_QUEUE, update_queue(self.vectors))

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
        return open_graph(self.settings, peak=self.metrics.peak)

    def _use_buffers(self) -> Buffers:
        s = self.settings
        sizes = (s.working_memory_size, s.ca1_buffer_size, s.episode_buffer_size)
        return process_shared().buffers((self._graph_key, sizes), *sizes)

    def _use_embedding(self) -> EmbeddingService:
        from ww_core.embedding import EmbeddingService

        s = self.settings
        key = (
            *("embedding", s.embedding_model, s.embedding_device, s.embedding_batch_size, s.embedding_fp16),
            *(s.embedding_threads, s.embedding_cache_size, s.embedding_cache_ttl, s.embedding_mode, s.redis_url),
        )
        service = self._use(key, lambda: EmbeddingService(s))
        self._meter_cache("local", service.cache_stats)
        return service

    def _meter_cache(self, which: str, stats: Callable[[], Mapping[str, float]]) -> None:
        """A process may have two: its own model's, and that of queries which others embed."""
        self._caches[which] = stats
        caches = tuple(self._caches.values())
        self._figures.meter(CACHE_HITS, lambda: sum(int(read()["hits"]) for read in caches))
        self._figures.meter(CACHE_TOTAL, lambda: sum(int(read()["total"]) for read in caches))

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

        return Strengthener(lambda: self.graph, self.clock, ring=lambda: self.doorbell.ring())

    def _remote_queries(self, ask: Callable[[str], Vector]) -> RemoteQueries:
        from ww_core.embedding.remote import RemoteQueries

        s = self.settings
        queries = RemoteQueries(ask, cache_size=s.embedding_cache_size, cache_ttl=s.embedding_cache_ttl)
        self._meter_cache("remote", queries.cache_stats)
        return queries

    def _make_consolidator(self) -> Consolidator:
        from ww_core.consolidation.service import Consolidator

        return Consolidator(self.graph, self.vectors, self.settings, self.hooks, self.metrics)


_OPENED = ("_graph", "_vectors", "_embedding", "_sparse", "_buffers", "_ingest", "_recaller", "_consolidator")


def _now() -> datetime:
    return datetime.now(UTC)


def _reopen_in_child() -> None:
    # locks may have been held by a thread that does not exist here
    Deployment._registry_lock = threading.RLock()
    for deployment in Deployment._all:
        deployment._lock = threading.RLock()
        deployment._holders = 0
        deployment.doorbell, deployment.ask_query = Silent(), None
        immortal(deployment._figures)
        deployment._figures = Figures()
        for name in (*_OPENED, "_strengthener"):
            immortal(deployment.__dict__.pop(name, None))


os.register_at_fork(after_in_child=_reopen_in_child)
