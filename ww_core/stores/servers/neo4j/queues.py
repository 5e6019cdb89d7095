"""The names of the outbox's queues: the property ``queue`` of an episode that waits for its vectors.

Rows of one queue are in the order of their property ``t``: when they were stored, or when a delay ends.
"""

from __future__ import annotations

from uuid import uuid4


def new(ns: str) -> str:
    """Due at once, never lost."""
    return f"{ns}/new"


def later(ns: str) -> str:
    """Never lost, and delayed."""
    return f"{ns}/later"


def lost(ns: str) -> str:
    """What the names of all parts of lost leases start with."""
    return f"{ns}/lost/"


def leased(ns: str) -> str:
    """What the names of the queues of all leases start with: rows that somebody holds."""
    return f"{ns}/leased/"


def lease(ns: str, lease_id: str) -> str:
    """The rows that one claim took."""
    return leased(ns) + lease_id


def part(ns: str, now: int, number: int) -> str:
    """A name for a part of a lost lease that nobody has had before; later ones sort later."""
    return f"{lost(ns)}{now:020d}-{uuid4().hex[:12]}-{number}"
