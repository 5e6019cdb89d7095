"""The collection of one namespace and model on a Qdrant server: found, made, and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from math import ceil
from typing import Any, TypeVar

import httpx
from qdrant_client import QdrantClient, models

from ww_core.config import Settings
from ww_core.errors import ConfigurationError
from ww_core.stores import points as p
from ww_core.stores.ports import Centroid, Fingerprint, Point
from ww_core.stores.servers.qdrant import shapes

PAGE = 1000
"""Points read in one scroll."""
COLD = "_cold"
"""Ends the name of the collection of archived vectors."""
OLDEST = (1, 16)
"""The oldest server that knows conditional upserts and metadata: an older one ignores both in silence."""

S = TypeVar("S", Point, Centroid)
T = TypeVar("T")
K = TypeVar("K")


def is_local(settings: Settings) -> bool:
    return settings.qdrant_url is not None and settings.qdrant_url.get_secret_value() == ":memory:"


def version(client: QdrantClient) -> str:
    """What the server says it is. The driver's own comparison is off: it warns of servers that do what is needed."""
    return str(client.info().version)


def check_version(client: QdrantClient, place: str) -> None:
    """Raise ConfigurationError where the server is too old."""
    found = version(client)
    numbers = re.match(r"(\d+)\.(\d+)", found)
    if numbers is not None and tuple(map(int, numbers.groups())) < OLDEST:
        raise ConfigurationError(
            f"the server at {place} is Qdrant {found}", hint=f"Qdrant {'.'.join(map(str, OLDEST))} or newer is needed"
        )


def name(namespace: str, fingerprint: Fingerprint, *, cold: bool = False) -> str:
    return f"{namespace}_{fingerprint.digest()}" + (COLD if cold else "")


def find(client: QdrantClient, namespace: str, *, cold: bool = False) -> tuple[str, Fingerprint | None] | None:
    """The namespace's collection, of what lives or of what was archived, and the model in its metadata; None where
    there is none."""
    pattern = re.compile(re.escape(namespace) + r"_[0-9a-f]{12}" + (COLD if cold else ""))
    names = sorted(c.name for c in client.get_collections().collections if pattern.fullmatch(c.name))
    if not names:
        return None
    metadata = client.get_collection(names[0]).config.metadata or {}
    stored = metadata.get("fingerprint")
    return names[0], Fingerprint(**stored) if isinstance(stored, dict) else None


def create(client: QdrantClient, settings: Settings, fingerprint: Fingerprint, *, cold: bool = False) -> None:
    """Make the collection with its indexes; harmless where another process is making it too."""
    collection = name(settings.namespace, fingerprint, cold=cold)
    local = is_local(settings)
    if not client.collection_exists(collection):
        if settings.qdrant_session_sharding and not local:
            _check_cluster(client)
        layout: dict[str, Any] = {}
        if not local:
            layout = {
                "shard_number": 1 if settings.qdrant_session_sharding else settings.qdrant_shard_number,
                "sharding_method": models.ShardingMethod.CUSTOM if settings.qdrant_session_sharding else None,
                "replication_factor": settings.qdrant_replication_factor,
                "write_consistency_factor": settings.qdrant_write_consistency,
                "quantization_config": shapes.quantization(settings.qdrant_quantization),
                "timeout": ceil(settings.qdrant_timeout),
            }
            if cold:
                layout |= shapes.cold_params()
        try:
            client.create_collection(
                collection,
                vectors_config=shapes.dense_params(fingerprint.dimension, on_disk=cold or settings.qdrant_on_disk),
                sparse_vectors_config=shapes.sparse_params(on_disk=cold),
                metadata={"fingerprint": asdict(fingerprint)},
                **layout,
            )
        except Exception:  # each transport has its own error for "exists already"
            if not client.collection_exists(collection):
                raise
    if local:
        return  # it has neither indexes nor shards
    for field, schema in (shapes.COLD_INDEXES if cold else shapes.INDEXES).items():
        client.create_payload_index(collection, field, field_schema=schema, wait=True)
    if settings.qdrant_session_sharding:
        existing = {str(key.key) for key in client.list_shard_keys(collection).shard_keys or []}
        for key in shard_keys(settings):
            if key not in existing:
                client.create_shard_key(collection, key)


def drop_outdated(client: QdrantClient, settings: Settings, collection: str) -> None:
    """Remove centroids that have no vector in their payload, as older collections have them."""
    if client.count(collection, count_filter=shapes.OUTDATED_CENTROIDS, exact=True).count:
        these = models.FilterSelector(filter=shapes.OUTDATED_CENTROIDS)
        client.delete(collection, these, wait=True, shard_key_selector=every_shard(settings))


def _check_cluster(client: QdrantClient) -> None:
    """Before a collection is made: a server alone takes the sharding method, and only then refuses every shard key."""
    if client.cluster_status().status == "disabled":
        raise ConfigurationError(
            "qdrant_session_sharding = true, and the Qdrant server is not in cluster mode",
            hint="start it with QDRANT__CLUSTER__ENABLED=true and --uri, or set qdrant_session_sharding to false",
        )


def shard_keys(settings: Settings) -> list[str]:
    """The shards that sessions are spread over, under ``qdrant_session_sharding``."""
    return [f"sessions-{index}" for index in range(settings.qdrant_shard_number)]


def shard_of(settings: Settings, session_id: str) -> str | None:
    """The shard key of a session, None where sessions are not spread by key."""
    if not settings.qdrant_session_sharding or is_local(settings):
        return None
    keys = shard_keys(settings)
    return keys[int(p.digest(session_id)[:8], 16) % len(keys)]


def every_shard(settings: Settings) -> list[int | str] | None:
    """The shards that a write to all sessions has to name, None where none may be named."""
    return list(shard_keys(settings)) if settings.qdrant_session_sharding and not is_local(settings) else None


def shards_of(settings: Settings, sessions: Iterable[str]) -> list[str] | None:
    """The shards that a search in these sessions needs, None for all."""
    keys = {key for session in sessions if (key := shard_of(settings, session)) is not None}
    return sorted(keys) or None


def by_shard(settings: Settings, items: Iterable[S]) -> list[tuple[str | None, list[S]]]:
    """Points or centroids by the shard key that they are written with."""
    return grouped(items, lambda item: shard_of(settings, item.session_id))


def grouped(items: Iterable[T], key: Callable[[T], K]) -> list[tuple[K, list[T]]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.items())


def scroll(
    client: QdrantClient,
    collection: str,
    condition: models.Filter,
    payload: list[str] | bool,
    vectors: list[str] | bool,
) -> Iterator[models.Record]:
    """Every point that meets the condition."""
    offset: Any = None
    while True:
        records, offset = client.scroll(
            collection, scroll_filter=condition, offset=offset, limit=PAGE, with_payload=payload, with_vectors=vectors
        )
        yield from records
        if offset is None:
            return


def connect(settings: Settings) -> QdrantClient:
    """A client of the server that the settings name; nothing is sent yet."""
    if settings.qdrant_url is None:
        raise ConfigurationError("qdrant_url is not set")
    url = settings.qdrant_url.get_secret_value()
    if url == ":memory:":
        return QdrantClient(":memory:")
    key = settings.qdrant_api_key
    over_grpc = settings.qdrant_grpc and settings.qdrant_prefer_grpc
    # Over HTTP the driver ignores its own pool_size where the server is on this machine.
    limits = httpx.Limits(max_connections=settings.qdrant_pool_size)
    pool: dict[str, Any] = {"pool_size": settings.qdrant_pool_size} if over_grpc else {"limits": limits}
    return QdrantClient(
        url=url,
        grpc_port=grpc_port(settings),
        prefer_grpc=over_grpc,
        api_key=None if key is None else key.get_secret_value(),
        timeout=ceil(settings.qdrant_timeout),
        check_compatibility=False,
        **pool,
    )


def grpc_port(settings: Settings) -> int:
    """``qdrant_grpc_port``, else the one after the HTTP port, as Qdrant's own defaults have it."""
    if settings.qdrant_grpc_port is not None:
        return settings.qdrant_grpc_port
    port = re.search(r":(\d+)(?:/|$)", settings.qdrant_url.get_secret_value()) if settings.qdrant_url else None
    return int(port[1]) + 1 if port else 6334
