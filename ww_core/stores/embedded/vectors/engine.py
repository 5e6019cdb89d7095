"""The shapes of qdrant-edge: configuration, filters, points and errors, from and to the domain's."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from ww_core.errors import NO_SPACE, StoreUnavailable, WorldWeaverError
from ww_core.models import Vector
from ww_core.stores import points as p
from ww_core.stores.ports import DENSE_NAMES, SPARSE_NAMES, Search, SparseVector

PLAIN = edge.PayloadSchemaType
INDEXES: Mapping[str, edge.PayloadSchemaType] = {
    **dict.fromkeys(p.KEYWORDS, PLAIN.Keyword),
    p.GENERATION: PLAIN.Integer,
    p.TIMESTAMP: PLAIN.Datetime,
}


NAMES = frozenset((*DENSE_NAMES, *SPARSE_NAMES))
COMPRESSED_FROM = 20_000
"""Points from which a search reads compressed vectors first; below, reading them all takes a millisecond or two."""
WHOLE_VECTORS = "/vectors/chunk_"
"""In the paths of the files that hold them."""
PAYLOADS = "/payload_storage/page_"
"""The same of payloads."""
PROPOSED, PROPOSED_BESIDE = 1.5, 32
"""Candidates that the compressed vectors propose and the whole vectors score: as a multiple of the limit, and at least
so many beyond it."""
SEARCH_THREADS = 1
"""Of a shard. The engine keeps Python's lock while it searches, so no second query could use another one, and those
with nothing to do are woken to look for work."""
COMPACTED_FROM = 20_000
"""Points that a cold shard collects in memory before opening it writes them in the form that stays on disk."""


def indexes(*, cold: bool) -> Mapping[str, Any]:
    """The payload indexes of a shard; those of a cold one stay on disk."""
    if not cold:
        return INDEXES
    memory = edge.Memory.Cold
    return {
        **{field: edge.KeywordIndexParams(memory=memory) for field in p.KEYWORDS},
        p.GENERATION: edge.IntegerIndexParams(memory=memory),
        p.TIMESTAMP: edge.DatetimeIndexParams(memory=memory),
    }


def config(dimension: int, *, cold: bool = False) -> edge.EdgeConfig:
    """Of a new shard for vectors of ``dimension`` numbers.

    There is no graph index: building one costs a millisecond of CPU for each vector and stops every thread of the
    process while it lasts. Vectors compressed to 4 bits a number, which a search scans whole and then scores anew, are
    ready as soon as they are written, and take 5 ms for 200 000. The whole vectors stay in their files (``Cold``): as
    fast once they were read, and what is never read takes no memory.

    In a ``cold`` one everything is left on disk, the compressed vectors and the indexes too.
    """
    compressed = edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4, memory=_kept(cold=cold))
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=dimension,
                distance=edge.Distance.Cosine,
                memory=edge.Memory.Cold,
                quantization_config=compressed,
            )
            for name in DENSE_NAMES
        },
        sparse_vectors=_sparse_vectors(cold=cold),
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=16, full_scan_threshold=10_000),
        id_tracker_memory=edge.Memory.Cold if cold else None,
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=COMPACTED_FROM * dimension * 4 // 1000)
        if cold
        else None,
        max_search_threads=SEARCH_THREADS,
        wal_enabled=True,
    )


def load(directory: Path, *, cold: bool) -> edge.EdgeShard:
    """The shard in ``directory`` as it is, but for its threads: an older one has as many as the engine chose.

    Dense vectors that are not named here stay what they are; a configuration without any vectors is refused.
    """
    threads = edge.EdgeConfig(sparse_vectors=_sparse_vectors(cold=cold), max_search_threads=SEARCH_THREADS)
    return edge.EdgeShard.load(str(directory), threads)


def _sparse_vectors(*, cold: bool) -> dict[str, edge.EdgeSparseVectorParams]:
    kept = _kept(cold=cold)
    return {name: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=kept) for name in SPARSE_NAMES}


def _kept(*, cold: bool) -> edge.Memory:
    """Where what every search reads lies."""
    return edge.Memory.Cold if cold else edge.Memory.Pinned


def release_pages(directory: Path) -> None:
    """Let go of the whole vectors in ``directory`` that this process has read. A pass over all of them would hold 1.5
    GiB a million otherwise. They stay in the system's page cache as long as there is room.

    To be called where nothing can unmap these files meanwhile: whatever else would be mapped there loses its content.
    """
    with suppress(OSError, AttributeError):  # another system, another C library
        _advise(directory, (WHOLE_VECTORS,), mmap.MADV_DONTNEED)


def read_ahead(directory: Path, *, wanted: bool) -> None:
    """Whether the system reads the neighbours of a page of whole vectors or payloads that it gets from the disk.

    The engine asks it not to, which suits searches. To who reads all of them it is wanted: 90 000 vectors that were not
    in memory took 1.3 s instead of 3.5. Mere advice: it may meet what is mapped there by then instead.
    """
    with suppress(OSError, AttributeError):
        advice = mmap.MADV_NORMAL if wanted else mmap.MADV_RANDOM
        _advise(directory, (WHOLE_VECTORS, PAYLOADS), advice, rights="rw")


def _advise(directory: Path, kinds: tuple[str, ...], advice: int, *, rights: str = "r") -> None:
    """Tell the system about the files of these kinds that are mapped and shared, with at least those rights."""
    advise = ctypes.CDLL(None).madvise
    for mapping in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
        area, granted, *_, path = mapping.split(maxsplit=5)
        shared = granted.startswith(rights) and granted.endswith("s")
        if shared and path.startswith(f"{directory}/") and any(kind in path for kind in kinds):
            start, end = (int(bound, 16) for bound in area.split("-"))
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise what the engine raises as StoreUnavailable."""
    try:
        yield
    except WorldWeaverError:
        raise
    except Exception as error:  # the engine raises plain Exception for everything
        raise unavailable(doing, error) from error


def unavailable(doing: str, error: Exception) -> StoreUnavailable:
    """One line that says what went wrong, and the way out where it is known."""
    reason = " ".join(str(error).split())  # the system's own words come last, after paths of any length
    if "No space left" in reason or "os error 28" in reason:
        return StoreUnavailable(f"{NO_SPACE} on the disk of the vector store while {doing}", hint="free some space")
    if "Read-only file system" in reason or "os error 30" in reason:
        return StoreUnavailable(f"the disk of the vector store is read-only ({doing})", hint="mount it writable")
    return StoreUnavailable(f"the vector store failed while {doing}: {reason[:300]}")


def vectors(dense: Mapping[str, Vector], sparse: Mapping[str, SparseVector]) -> dict[str, Any]:
    """The named vectors of a point; a sparse vector without terms is left out."""
    # Lists, because the engine reads them twice as fast as arrays; one for a vector under two names.
    lists: dict[int, list[float]] = {}
    named: dict[str, Any] = {}
    for name, row in dense.items():
        named[name] = lists[id(row)] if id(row) in lists else lists.setdefault(id(row), row.tolist())
    for name, vector in sparse.items():
        if len(vector.indices):
            named[name] = edge.SparseVector(vector.indices.tolist(), vector.values.tolist())
    return named


def dense(record: edge.Record, name: str) -> list[float] | None:
    """A named vector of a record, None where it has none."""
    named: Any = record.vector
    return named.get(name) if named else None


def known(record: edge.Record) -> dict[str, Any]:
    """The named vectors of a record that a shard of today has; an older one may hold others."""
    named: Any = record.vector
    return {name: vector for name, vector in (named or {}).items() if name in NAMES}


def _condition(term: p.Term) -> Any:
    match term:
        case p.AnyOf(field, values):
            return edge.FieldCondition(field, match=edge.MatchAny(list(values)))
        case p.Between(field, since, until):
            return edge.FieldCondition(field, range=edge.RangeDateTime(gte=since, lt=until))


def filtered(conditions: Sequence[p.Term]) -> edge.Filter | None:
    """The filter that means the same, None where nothing is restricted."""
    return edge.Filter(must=[_condition(term) for term in conditions]) if conditions else None


def any_of(field: str, values: list[str]) -> edge.Filter:
    return edge.Filter(must=[edge.FieldCondition(field, match=edge.MatchAny(values))])


def outdated_centroids() -> edge.Filter:
    """Those without a vector in their payload, as older shards have them."""
    kind = edge.FieldCondition(p.KIND, match=edge.MatchAny([p.CENTROID_KIND]))
    return edge.Filter(must=[kind, edge.IsEmptyCondition(p.CENTROID_VECTOR)])


def older_than(generation: int) -> edge.Filter:
    return edge.Filter(must=[edge.FieldCondition(p.GENERATION, range=edge.RangeFloat(lt=generation))])


def query(
    search: Search,
    limit: int,
    condition: edge.Filter | None,
    fields: list[str] | bool,
    *,
    compressed: bool,
    rescored: bool = True,
) -> edge.QueryRequest:
    """The request for the ``limit`` best points of a search among those that meet the condition. What ``compressed``
    vectors propose is ``rescored`` with the whole ones, or has a cosine that errs by 0.004 (standard deviation)."""
    vector: Any
    params = None
    if isinstance(search.vector, SparseVector):
        vector = edge.SparseVector(search.vector.indices.tolist(), search.vector.values.tolist())
    else:
        vector = np.asarray(search.vector, np.float32).tolist()  # the engine reads a list twice as fast
        more = max(PROPOSED, 1 + PROPOSED_BESIDE / limit)
        quantization = edge.QuantizationSearchParams(ignore=not compressed, rescore=rescored, oversampling=more)
        params = edge.SearchParams(exact=search.exact, quantization=quantization)
    return edge.QueryRequest(
        limit=limit,
        query=edge.Query.Nearest(vector, using=search.using),
        filter=condition,
        with_payload=fields,
        params=params,
    )


def uuid_of(point_id: object) -> UUID:
    return point_id if isinstance(point_id, UUID) else UUID(str(point_id))


def number_of(point_id: object) -> int:
    """``uuid_of(point_id).int``."""
    return uuid_of(point_id).int


# -- payload of what was found


def text(payload: Mapping[str, Any] | None, key: str) -> str:
    return str((payload or {})[key])


def whole(payload: Mapping[str, Any] | None, key: str) -> int:
    return int((payload or {})[key])


def meets(payload: Mapping[str, Any] | None, conditions: Sequence[p.Term]) -> bool:
    known = payload or {}
    for term in conditions:  # noqa: SIM110 - a search asks hundreds of times, and a generator costs more than the answer
        if not p.holds(term, known):
            return False
    return True
