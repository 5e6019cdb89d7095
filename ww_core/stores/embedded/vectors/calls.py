"""The calls that an owner answers: how each is packed by the client, run by the owner, and its answer unpacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ww_core.stores.embedded.vectors import codec
from ww_core.stores.embedded.vectors.codec import Arrays
from ww_core.stores.ports import VectorStore


@dataclass(frozen=True, slots=True)
class Call:
    """``run`` answers a packed request with a packed answer, ``unpack`` reads that answer; both get the arrays that
    came along, ``run`` also those to send."""

    run: Callable[[VectorStore, Any, Arrays, Arrays], Any]
    unpack: Callable[[Any, Arrays], Any] = lambda answer, _: answer


def _upsert(store: VectorStore, packed: Any, given: Arrays, _: Arrays) -> None:
    store.upsert(codec.unpack_points(packed, given))


def _change(store: VectorStore, packed: Any, given: Arrays, _: Arrays) -> None:
    store.change(codec.unpack_changes(packed, given))


def _search(store: VectorStore, packed: Any, given: Arrays, _: Arrays) -> Any:
    return codec.pack_hits(store.search(codec.unpack_searches(packed, given)))


def _vectors(store: VectorStore, packed: Any, _: Arrays, arrays: Arrays) -> Any:
    return codec.pack_vectors(store.vectors(packed[0], single=packed[1]), arrays)


def _walk(store: VectorStore, packed: Any, _: Arrays, __: Arrays) -> Any:
    return store.walk(after=packed[0], limit=packed[1])


def _put_centroids(store: VectorStore, packed: Any, given: Arrays, _: Arrays) -> None:
    store.put_centroids(codec.unpack_centroids(packed, given))


def _centroids(store: VectorStore, packed: Any, _: Arrays, arrays: Arrays) -> Any:
    return codec.pack_centroids(store.centroids(*packed), arrays)


CALLS: Mapping[str, Call] = {
    "ping": Call(lambda store, _, __, ___: store.ping()),
    "ensure": Call(lambda store, packed, _, __: store.ensure(codec.unpack_fingerprint(packed))),
    "upsert": Call(_upsert),
    "change": Call(_change),
    "set_cells": Call(lambda store, packed, _, __: store.set_cells(packed[0], tuple(packed[1]))),
    "delete": Call(lambda store, packed, _, __: store.delete(packed)),
    "search": Call(_search, lambda answer, _: codec.unpack_hits(answer)),
    "generations": Call(
        lambda store, packed, _, __: store.generations(packed),
        lambda answer, _: {key: (generation, points) for key, (generation, points) in answer.items()},
    ),
    "vectors": Call(_vectors, codec.unpack_vectors),
    "pieces": Call(
        lambda store, packed, _, __: codec.pack_pieces(store.pieces(packed)),
        lambda answer, _: codec.unpack_pieces(answer),
    ),
    "walk": Call(_walk, lambda answer, _: ([(key, window) for key, window in answer[0]], answer[1])),
    "count": Call(lambda store, packed, _, __: store.count(codec.unpack_where(packed[0]), exact=packed[1])),
    "put_centroids": Call(_put_centroids),
    "centroids": Call(_centroids, codec.unpack_centroids),
    "drop_centroids": Call(lambda store, packed, _, __: store.drop_centroids(packed[0], keep=packed[1])),
    "walk_centroids": Call(
        lambda store, packed, _, __: store.walk_centroids(after=packed[0], limit=packed[1]),
        lambda answer, _: (list(answer[0]), answer[1]),
    ),
    "drop_attempts": Call(lambda store, packed, _, __: store.drop_attempts(packed)),
    "info": Call(lambda store, _, __, ___: dict(store.info())),
    "scrub": Call(lambda store, _, __, ___: store.scrub()),
}
