"""The shapes of qdrant-client: collection parameters, filters, queries and errors, from and to the domain's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import grpc
import httpx
from qdrant_client import models
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from ww_core.errors import NO_SPACE, ConfigurationError, StoreUnavailable, WorldWeaverError
from ww_core.masking import mask
from ww_core.models import Vector
from ww_core.stores import points as p
from ww_core.stores.ports import DENSE_NAMES, SPARSE_NAMES, Search, SparseVector, Where

Quantization: TypeAlias = Literal["none", "scalar", "binary"]

INDEXES: Mapping[str, Any] = {
    **dict.fromkeys(p.KEYWORDS, models.PayloadSchemaType.KEYWORD),
    p.SESSION: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    p.GENERATION: models.PayloadSchemaType.INTEGER,
    p.TIMESTAMP: models.PayloadSchemaType.DATETIME,
}


COLD_INDEXES: Mapping[str, Any] = {
    **{
        field: models.KeywordIndexParams(
            type=models.KeywordIndexType.KEYWORD, is_tenant=field == p.SESSION or None, on_disk=True
        )
        for field in p.KEYWORDS
    },
    p.GENERATION: models.IntegerIndexParams(
        type=models.IntegerIndexType.INTEGER, lookup=True, range=True, on_disk=True
    ),
    p.TIMESTAMP: models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME, on_disk=True),
}
"""Of a collection that leaves everything on disk."""


def dense_params(dimension: int, *, on_disk: bool) -> dict[str, models.VectorParams]:
    """The dense vectors of a collection."""
    return {
        name: models.VectorParams(size=dimension, distance=models.Distance.COSINE, on_disk=on_disk)
        for name in DENSE_NAMES
    }


def sparse_params(*, on_disk: bool) -> dict[str, models.SparseVectorParams]:
    index = models.SparseIndexParams(on_disk=True) if on_disk else None
    return {name: models.SparseVectorParams(modifier=models.Modifier.IDF, index=index) for name in SPARSE_NAMES}


def cold_params() -> dict[str, Any]:
    """What a collection of archived vectors has beside those: no graph, and compressed vectors on disk too."""
    compressed = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=False)
    return {
        "hnsw_config": models.HnswConfigDiff(m=0),
        "quantization_config": models.ScalarQuantization(scalar=compressed),
        "on_disk_payload": True,
    }


def quantization(kind: Quantization) -> Any:
    """Of the dense vectors; the originals stay and rescore what is found."""
    match kind:
        case "none":
            return None
        case "scalar":
            return models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            )
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))


def vectors(dense: Mapping[str, Vector], sparse: Mapping[str, SparseVector]) -> dict[str, Any]:
    """The named vectors of a point; a sparse vector without terms is left out."""
    named: dict[str, Any] = {name: vector.tolist() for name, vector in dense.items()}
    for name, vector in sparse.items():
        if len(vector.indices):
            named[name] = sparse_vector(vector)
    return named


def sparse_vector(vector: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())


def _condition(term: p.Term) -> Any:
    match term:
        case p.AnyOf(field, values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
        case p.Between(field, since, until):
            return models.FieldCondition(key=field, range=models.DatetimeRange(gte=since, lt=until))


def filtered(where: Where) -> models.Filter | None:
    """The filter that means the same, None where nothing is restricted."""
    conditions = p.conditions(where)
    return models.Filter(must=[_condition(term) for term in conditions]) if conditions else None


def any_of(field: str, values: Sequence[str]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))


OUTDATED_CENTROIDS = models.Filter(
    must=[
        any_of(p.KIND, [p.CENTROID_KIND]),
        models.IsEmptyCondition(is_empty=models.PayloadField(key=p.CENTROID_VECTOR)),
    ]
)
"""Those without a vector in their payload."""


def older_than(generation: int) -> models.FieldCondition:
    return models.FieldCondition(key=p.GENERATION, range=models.Range(lt=generation))


RESCORED = models.QuantizationSearchParams(rescore=True)
"""By default a server gives the scores of 8-bit vectors as they are."""


def query(search: Search, limit: int, *, local: bool, shard_keys: list[str] | None) -> models.QueryRequest:
    """The request for the ``limit`` best points of a search."""
    sparse = isinstance(search.vector, SparseVector)
    return models.QueryRequest(
        query=sparse_vector(search.vector) if isinstance(search.vector, SparseVector) else search.vector.tolist(),
        using=search.using,
        filter=filtered(search.where),
        limit=limit,
        with_payload=[p.EPISODE, p.WINDOW],
        # The in-memory mode is always exact, and says so with a warning when it is asked to be.
        params=None if local or sparse else models.SearchParams(exact=search.exact, quantization=RESCORED),
        shard_key=None if shard_keys is None else list[Any](shard_keys),
    )


def dense(record: Any, name: str) -> list[float] | None:
    """A named vector of a record, None where it has none."""
    named = record.vector
    return named.get(name) if isinstance(named, dict) else None


# -- errors

_REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


@contextmanager
def translated(server: str, doing: str) -> Iterator[None]:
    """Raise what the driver raises as this project's errors, in one line and without secrets."""
    try:
        yield
    except WorldWeaverError:
        raise
    except UnexpectedResponse as error:
        if error.status_code in (401, 403):
            raise _refused(server) from error
        reason = error.reason_phrase + ": " + error.content.decode("utf-8", "replace")
        raise _unavailable(server, doing, f"{error.status_code} {reason}") from error
    except grpc.RpcError as error:
        code = error.code() if isinstance(error, grpc.Call) else None
        if code in _REFUSED:
            raise _refused(server) from error
        details = error.details() if isinstance(error, grpc.Call) else str(error)
        raise _unavailable(server, doing, f"{code.name if code else 'RPC'}: {details}") from error
    except (ApiException, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise _unavailable(server, doing, str(error) or type(error).__name__) from error
    except (ValueError, RuntimeError, KeyError) as error:  # what the in-memory mode raises
        raise _unavailable(server, doing, str(error)) from error


def _refused(server: str) -> ConfigurationError:
    return ConfigurationError(f"Qdrant at {server} refuses the API key", hint="set qdrant_api_key")


def _unavailable(server: str, doing: str, reason: str) -> StoreUnavailable:
    line = mask(" ".join(reason.split()))[:300]
    if "No space left" in reason:
        return StoreUnavailable(
            f"{NO_SPACE} for Qdrant at {server} while {doing}: {line}", hint="free space on its disk"
        )
    return StoreUnavailable(f"Qdrant at {server} failed while {doing}: {line}", hint="is it running? see qdrant_url")


def waiting(state: models.CollectionInfo) -> int | None:
    """Updates in the collection's queue; None where the server, older or in memory, does not tell."""
    return None if state.update_queue is None else state.update_queue.length
