"""Removing the last traces of what was erased from the stores' files, now and then rather than with every erasure.

A deleted point leaves numbers behind (its vectors, its id, digests of its session and context; never a text), and so
may, rarely, the digest of a text in the index that exact copies are found by. Taking them away rewrites everything that
lives, so an erasure only notes that it is due, and the sweep does it at most once an hour, for stores of a size that
takes seconds.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from uuid import uuid4

from ww_core.stores.ports import GraphStore, VectorStore

log = logging.getLogger(__name__)

INTERVAL = timedelta(hours=1)
MOST_POINTS = 20_000
"""About 10 s of rewriting. Above it the store's own optimiser is left to it, and ``scrub`` to whoever asks for it."""
ERASED = "scrub.erased"
"""Fact: a mark of the last erasure that removed points."""
SCRUBBED = "scrub.done"
"""Fact: the mark that the last scrub covers, and when it was."""


def note(graph: GraphStore) -> None:
    """Points were deleted because their episodes were erased."""
    graph.put_fact(ERASED, uuid4().hex)


def pending(graph: GraphStore) -> bool:
    """Whether an erasure happened that no scrub has followed yet."""
    return graph.get_fact(ERASED) != _last(graph)[0]


def scrub_if_due(graph: GraphStore, vectors: VectorStore, *, now: datetime) -> bool:
    """Scrub where something was erased since the last time, that was an hour ago, and the store is not too large."""
    mark, (covered, at) = graph.get_fact(ERASED), _last(graph)
    if mark == covered or (at is not None and now - at < INTERVAL) or vectors.count() > MOST_POINTS:
        return False
    scrub(graph, vectors, now=now)
    return True


def scrub(graph: GraphStore, vectors: VectorStore, *, now: datetime) -> None:
    """Scrub at once, whatever the size (about 0.5 ms a point). Raises StoreUnavailable."""
    mark = graph.get_fact(ERASED)  # read first: what is erased meanwhile is for the next time
    graph.scrub()  # the quick one first: where it fails, the long one is not done for nothing
    vectors.scrub()
    graph.put_fact(SCRUBBED, json.dumps([mark, now.isoformat()]))
    log.info("scrubbed the stores", extra={"action": "scrub"})


def _last(graph: GraphStore) -> tuple[str | None, datetime | None]:
    text = graph.get_fact(SCRUBBED)
    if not text:
        return None, None
    mark, at = json.loads(text)
    return mark, datetime.fromisoformat(at)
