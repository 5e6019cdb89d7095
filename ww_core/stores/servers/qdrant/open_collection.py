"""A collection on a Qdrant server while this process uses it: connected to, made, dropped, and its points looked up."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from qdrant_client import QdrantClient, models

from ww_core.config import Settings
from ww_core.errors import ConfigurationError
from ww_core.stores import points as p
from ww_core.stores.ports import Fingerprint, Point
from ww_core.stores.servers.qdrant import collection, shapes

_outlived: list[QdrantClient] = []
"""Clients of a parent process: closing them in a child would close the parent's channels."""


class OpenCollection:
    """The server's collection, where there is one, and what its parts share. Connects at the first call; thread-safe;
    connects anew after a fork."""

    def __init__(self, settings: Settings, *, cold: bool = False) -> None:
        self._settings = settings
        self._cold = cold
        self._namespace = settings.namespace
        self._local = collection.is_local(settings)
        self._lock = threading.RLock()
        self._client: QdrantClient | None = None
        self._pid = 0
        self._name: str | None = None
        self._place = ":memory:"
        if settings.qdrant_url is not None and not self._local:
            self._place = urlsplit(settings.qdrant_url.get_secret_value()).netloc.rpartition("@")[2]

    # -- the collection

    def ping(self) -> None:
        with self._using("answering") as client:
            client.get_collections()

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            self._name = None
            if client is not None and self._pid == os.getpid():
                client.close()

    def ensure(self, fingerprint: Fingerprint) -> None:
        with self._using("preparing the collection") as client:
            if not self._local:
                collection.check_version(client, self._place)
            wanted = collection.name(self._namespace, fingerprint, cold=self._cold)
            found = collection.find(client, self._namespace, cold=self._cold)
            if found is not None and found[0] != wanted:
                stored = p.described(found[1]) if found[1] else "another model"
                raise ConfigurationError(
                    f"collection {found[0]} on {self._place} holds vectors of {stored}, not of "
                    f"{p.described(fingerprint)}",
                    hint="set embedding_model back, or use another namespace",
                )
            collection.create(client, self._settings, fingerprint, cold=self._cold)
            if found is not None:
                collection.drop_outdated(client, self._settings, wanted)
            self._name = wanted

    def fingerprint(self) -> Fingerprint | None:
        with self._using("looking for the collection") as client:
            found = collection.find(client, self._namespace, cold=self._cold)
        return None if found is None else found[1]

    def drop(self) -> None:
        """Remove the namespace's collection with everything in it."""
        with self._using("dropping the collection") as client:
            name = self._find(client)
            if name is not None:
                client.delete_collection(name)
            self._name = None

    # -- what the parts share

    @contextmanager
    def _using(self, doing: str) -> Iterator[QdrantClient]:
        """The client, with the driver's errors translated. The in-memory mode takes one call at a time."""
        with shapes.translated(self._place, doing), self._lock if self._local else nullcontext():
            yield self._connected()

    def _connected(self) -> QdrantClient:
        client = self._client
        if client is not None and self._pid == os.getpid():
            return client
        if self._pid not in (0, os.getpid()):
            self._lock = threading.RLock()  # another thread may have held it at the fork
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                if self._client is not None:
                    _outlived.append(self._client)
                self._client = collection.connect(self._settings)
                self._pid = os.getpid()
            return self._client

    def _find(self, client: QdrantClient) -> str | None:
        """The collection's name, None where there is none yet."""
        if self._name is None:
            found = collection.find(client, self._namespace, cold=self._cold)
            self._name = None if found is None else found[0]
        return self._name

    def _writable(self, client: QdrantClient) -> str:
        name = self._find(client)
        if name is None:
            raise ConfigurationError(
                f"no vector collection of namespace {self._namespace} on {self._place}",
                hint="ensure(fingerprint) makes it for a model",
            )
        return name

    def _id(self, point: Point) -> UUID:
        return p.point_id(self._namespace, point.episode_id, point.window)

    def _stored(
        self, client: QdrantClient, name: str, episode_ids: Iterable[str]
    ) -> dict[str, list[tuple[str, int, str | None]]]:
        """(point id, generation, shard key) of every point of the episodes."""
        ids = list(dict.fromkeys(episode_ids))
        stored: dict[str, list[tuple[str, int, str | None]]] = {}
        if not ids:
            return stored
        these = models.Filter(must=[shapes.any_of(p.EPISODE, ids)])
        for record in collection.scroll(client, name, these, [p.EPISODE, p.GENERATION], False):
            payload = record.payload or {}
            key = None if record.shard_key is None else str(record.shard_key)
            stored.setdefault(str(payload[p.EPISODE]), []).append((str(record.id), int(payload[p.GENERATION]), key))
        return stored

    @staticmethod
    def _delete_older(client: QdrantClient, name: str, points: Mapping[tuple[str | None, int], list[str]]) -> None:
        """Remove points by (shard key, generation) where theirs is older still."""
        for (key, generation), ids in points.items():
            still = models.Filter(must=[models.HasIdCondition(has_id=list[Any](ids)), shapes.older_than(generation)])
            client.delete(name, models.FilterSelector(filter=still), wait=True, shard_key_selector=key)
