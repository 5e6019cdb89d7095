"""What the domain asks of a graph store, a vector store and a doorbell, as Protocols.

The graph store is the record: every piece of work is first a fact in it. The vector store holds derived data and can be
rebuilt. All calls are blocking and thread-safe; a call that returns has been durable. Every multi-row call is one
atomic step and safe to repeat. Adapters raise ``StoreUnavailable`` where the store cannot be reached, and nothing
of their own drivers.
"""

from ww_core.stores.ports.doorbell import Doorbell, Queue
from ww_core.stores.ports.graph import GraphStore
from ww_core.stores.ports.graph_records import (
    CONTEXT_NEIGHBOURS,
    Added,
    AddResult,
    Claim,
    Dirty,
    DirtyRow,
    Fresh,
    Membership,
    Moved,
    Place,
    ReadTexts,
    Standing,
    Strength,
    place_of,
)
from ww_core.stores.ports.vector_records import (
    BM25,
    BM25_CONTEXT,
    CONTENT,
    CONTEXT,
    DENSE_NAMES,
    SPARSE_NAMES,
    Centroid,
    Fingerprint,
    Hit,
    Point,
    PointChange,
    Search,
    SparseVector,
    StoredVector,
    StoredVectors,
)
from ww_core.stores.ports.vectors import VectorStore
from ww_core.stores.ports.where import Where

__all__ = [
    "BM25",
    "BM25_CONTEXT",
    "CONTENT",
    "CONTEXT",
    "CONTEXT_NEIGHBOURS",
    "DENSE_NAMES",
    "SPARSE_NAMES",
    "AddResult",
    "Added",
    "Centroid",
    "Claim",
    "Dirty",
    "DirtyRow",
    "Doorbell",
    "Fingerprint",
    "Fresh",
    "GraphStore",
    "Hit",
    "Membership",
    "Moved",
    "Place",
    "Point",
    "PointChange",
    "Queue",
    "ReadTexts",
    "Search",
    "SparseVector",
    "Standing",
    "StoredVector",
    "StoredVectors",
    "Strength",
    "VectorStore",
    "Where",
    "place_of",
]
