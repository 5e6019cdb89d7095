"""Calls of the vector port as JSON and raw arrays: what goes over the owner's socket.

A message is a JSON header and numpy buffers; nothing in it can name code to run. Points and changes travel as columns,
because thousands of small arrays cost more than the write itself.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ww_core import errors
from ww_core.errors import StoreUnavailable, WorldWeaverError
from ww_core.stores.ports import (
    Centroid,
    Fingerprint,
    Hit,
    Point,
    PointChange,
    Search,
    SparseVector,
    StoredVectors,
    Where,
)

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = list[Array]
"""The buffers of a message; the header refers to them by position."""


def _put(arrays: Arrays, array: Array) -> int:
    arrays.append(np.ascontiguousarray(array))
    return len(arrays) - 1


def _when(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _text(when: datetime | None) -> str | None:
    return None if when is None else when.isoformat()


# -- named vectors of many points, as columns


def _pack_vectors(items: Sequence[Point | PointChange], arrays: Arrays) -> dict[str, Any]:
    dense: dict[str, list[int]] = {}
    sparse: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        for name in item.dense:
            dense.setdefault(name, []).append(row)
        for name in item.sparse:
            sparse.setdefault(name, []).append(row)
    packed: dict[str, Any] = {"dense": {}, "sparse": {}}
    for name, rows in dense.items():
        matrix = np.stack([np.asarray(items[row].dense[name], np.float32) for row in rows])
        packed["dense"][name] = [rows, _put(arrays, matrix)]
    for name, rows in sparse.items():
        vectors = [items[row].sparse[name] for row in rows]
        ends = np.cumsum([len(vector.indices) for vector in vectors])
        indices = np.concatenate([np.asarray(vector.indices, np.uint32) for vector in vectors])
        values = np.concatenate([np.asarray(vector.values, np.float32) for vector in vectors])
        packed["sparse"][name] = [rows, ends.tolist(), _put(arrays, indices), _put(arrays, values)]
    return packed


def _unpack_vectors(
    packed: Mapping[str, Any], count: int, arrays: Arrays
) -> tuple[list[dict[str, Array]], list[dict[str, SparseVector]]]:
    dense: list[dict[str, Array]] = [{} for _ in range(count)]
    sparse: list[dict[str, SparseVector]] = [{} for _ in range(count)]
    for name, (rows, at) in packed["dense"].items():
        for row, vector in zip(rows, arrays[at], strict=True):
            dense[row][name] = vector
    for name, (rows, ends, indices_at, values_at) in packed["sparse"].items():
        start = 0
        for row, end in zip(rows, ends, strict=True):
            sparse[row][name] = SparseVector(arrays[indices_at][start:end], arrays[values_at][start:end])
            start = end
    return dense, sparse


# -- the objects of the port


def pack_points(points: Sequence[Point], arrays: Arrays) -> Any:
    rows = [
        [
            *(p.episode_id, p.window, p.windows, p.generation, p.session_id, p.timestamp.isoformat(), p.outcome),
            *(dict(p.context), p.importance, p.cells, p.archived, b64encode(p.pieces).decode("ascii")),
        ]
        for p in points
    ]
    return {"rows": rows, "vectors": _pack_vectors(points, arrays)}


def unpack_points(packed: Any, arrays: Arrays) -> list[Point]:
    dense, sparse = _unpack_vectors(packed["vectors"], len(packed["rows"]), arrays)
    points = []
    for row, named, terms in zip(packed["rows"], dense, sparse, strict=True):
        (
            episode_id,
            window,
            windows,
            generation,
            session_id,
            timestamp,
            outcome,
            context,
            importance,
            cells,
            gone,
            signs,
        ) = row
        points.append(
            Point(
                episode_id=episode_id,
                window=window,
                windows=windows,
                generation=generation,
                session_id=session_id,
                timestamp=datetime.fromisoformat(timestamp),
                dense=named,
                sparse=terms,
                outcome=outcome,
                context=context,
                importance=importance,
                cells=tuple(cells),
                archived=gone,
                pieces=b64decode(signs),
            )
        )
    return points


def pack_changes(changes: Sequence[PointChange], arrays: Arrays) -> Any:
    rows = [
        [
            *(c.episode_id, _text(c.timestamp), c.outcome, None if c.context is None else dict(c.context)),
            *(c.importance, c.cells, c.archived),
        ]
        for c in changes
    ]
    return {"rows": rows, "vectors": _pack_vectors(changes, arrays)}


def unpack_changes(packed: Any, arrays: Arrays) -> list[PointChange]:
    dense, sparse = _unpack_vectors(packed["vectors"], len(packed["rows"]), arrays)
    changes = []
    for row, named, terms in zip(packed["rows"], dense, sparse, strict=True):
        episode_id, timestamp, outcome, context, importance, cells, archived = row
        changes.append(
            PointChange(
                episode_id=episode_id,
                dense=named,
                sparse=terms,
                timestamp=_when(timestamp),
                outcome=outcome,
                context=context,
                importance=importance,
                cells=None if cells is None else tuple(cells),
                archived=archived,
            )
        )
    return changes


def pack_where(where: Where | None) -> Any:
    if where is None:
        return None
    return {
        "sessions": where.sessions,
        "since": _text(where.since),
        "until": _text(where.until),
        "outcomes": where.outcomes,
        "context": dict(where.context),
        "cells": where.cells,
        "uncelled": where.uncelled,
        "episode_ids": where.episode_ids,
        "archived": where.archived,
    }


def unpack_where(packed: Any) -> Where | None:
    if packed is None:
        return None
    lists = {key: tuple(packed[key]) for key in ("sessions", "outcomes", "cells", "episode_ids")}
    return Where(**(packed | lists | {"since": _when(packed["since"]), "until": _when(packed["until"])}))


def pack_searches(searches: Sequence[Search], arrays: Arrays) -> Any:
    packed = []
    for search in searches:
        if isinstance(search.vector, SparseVector):
            vector = [_put(arrays, search.vector.indices), _put(arrays, search.vector.values)]
        else:
            vector = [_put(arrays, search.vector)]
        packed.append([search.using, vector, pack_where(search.where), search.limit, search.exact])
    return packed


def unpack_searches(packed: Any, arrays: Arrays) -> list[Search]:
    searches = []
    for using, at, where, limit, exact in packed:
        parts = [arrays[index] for index in at]
        vector = SparseVector(*parts) if len(parts) == 2 else parts[0]
        searches.append(Search(using, vector, unpack_where(where) or Where(), limit, exact))
    return searches


def pack_hits(found: Sequence[Sequence[Hit]]) -> Any:
    return [[[hit.episode_id, hit.window, hit.score] for hit in hits] for hits in found]


def unpack_hits(packed: Any) -> list[list[Hit]]:
    return [[Hit(*row) for row in rows] for rows in packed]


def pack_vectors(stored: StoredVectors, arrays: Arrays) -> Any:
    return [stored.episode_ids, _put(arrays, stored.rows)]


def unpack_vectors(packed: Any, arrays: Arrays) -> StoredVectors:
    ids, at = packed
    return StoredVectors(ids, arrays[at])


def pack_pieces(kept: Mapping[str, bytes]) -> Any:
    return {episode_id: b64encode(signs).decode("ascii") for episode_id, signs in kept.items()}


def unpack_pieces(packed: Any) -> dict[str, bytes]:
    return {episode_id: b64decode(signs) for episode_id, signs in packed.items()}


def pack_centroids(centroids: Sequence[Centroid], arrays: Arrays) -> Any:
    if not centroids:
        return None
    rows = [[c.cluster_id, c.session_id, c.attempt, c.radius] for c in centroids]
    return [rows, _put(arrays, np.stack([np.asarray(c.vector, np.float32) for c in centroids]))]


def unpack_centroids(packed: Any, arrays: Arrays) -> list[Centroid]:
    if packed is None:
        return []
    rows, at = packed
    return [
        Centroid(cluster_id, session_id, attempt, vector, radius)
        for (cluster_id, session_id, attempt, radius), vector in zip(rows, arrays[at], strict=True)
    ]


def pack_fingerprint(fingerprint: Fingerprint) -> Any:
    return asdict(fingerprint)


def unpack_fingerprint(packed: Any) -> Fingerprint:
    return Fingerprint(**packed)


def pack_error(error: WorldWeaverError) -> Any:
    return [type(error).__name__, error.message, error.hint]


def unpack_error(packed: Any) -> WorldWeaverError:
    """The same error; of a class that this version does not know, StoreUnavailable."""
    name, message, hint = packed
    known = getattr(errors, name, None) if name in errors.__all__ else None
    error: WorldWeaverError = (known or StoreUnavailable)(message, hint=hint)
    return error
