"""How nodes become episodes, and the small helpers every part of the graph store shares."""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from neo4j import Record, Transaction

from ww_core.models import Episode, State
from ww_core.stores.ports import Place
from ww_core.stores.servers.neo4j.connection import Server
from ww_core.stores.values import to_time, to_time_or_none, to_us

_TIME_BITS, _POSITION_BITS = 60, 36
"""Of a place; half of each is for values below zero. 36 524 years, and more positions than a file has lines."""
_SORTED = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz",
)
"""Base 64 with digits that sort as their values do."""
LAST_PLACE = "~"
"""Sorts after every place."""

NOW = """WITH datetime.realtime() AS d WITH d.epochSeconds * 1000000 + d.microsecond AS clock
WITH clock, coalesce($now, clock) AS now
"""
"""Binds ``clock``, the server's own time, and ``now``, the time of records and leases (``$now`` where it is given)."""

VISIBLE = "m.from <= s.current AND (m.to IS NULL OR m.to > s.current)"
"""Membership ``m`` is part of the current run of session ``s``."""

CLUSTER_OF = "CASE type(m) WHEN 'MEMBER_OF' THEN c.id END"
NEAREST_OF = "CASE WHEN c:Cluster AND coalesce(m.nearest, c.id) <> '' THEN coalesce(m.nearest, c.id) END"
ORIGINAL_OF = "[(e)-[d:DUPLICATE_OF]->(o) WHERE d.from = m.from | o.id][0]"
"""What the membership ``m`` of ``e``, leading to ``c``, says. A member's ``nearest`` is kept where it is not its own
cluster, as an empty text where there is none."""

EPISODE = f"""
MATCH (s:Session {{ns: e.ns, id: e.session}})
OPTIONAL MATCH (e)-[m:MEMBER_OF|NEAR]->(c) WHERE {VISIBLE}
RETURN properties(e) AS e, {CLUSTER_OF} AS cluster, {NEAREST_OF} AS nearest, {ORIGINAL_OF} AS original"""
"""The end of a query that binds ``e``: columns for ``to_episode``. Their order is lost."""


class Part:
    """What every part of the graph store holds."""

    def __init__(self, server: Server, namespace: str, clock: Callable[[], datetime] | None) -> None:
        self._server = server
        self._ns = namespace
        self._clock = clock

    def _given(self) -> int | None:
        """The time to use in place of the server's, None where the server's counts."""
        return None if self._clock is None else to_us(self._clock())

    def _now(self, tx: Transaction) -> int:
        """Microseconds since 1970, by the store's clock."""
        given = self._given()
        return int(value(tx, f"{NOW} RETURN now", now=None)) if given is None else given


def value(tx: Transaction, query: str, **parameters: Any) -> Any:
    """The only value of the first row, None where there is no row."""
    record = tx.run(query, parameters).single()
    return None if record is None else record[0]


def to_place(at: int, position: int, episode_id: str) -> str:
    """A text that sorts as (at, position, episode_id) does: one property, one index, one comparison."""
    return _digits(at, position) + episode_id


def to_place_of_time(at: int) -> str:
    """Sorts before every place at that time and after every earlier one."""
    return _digits(at, 0)[: _TIME_BITS // 6]


def place_after(after: Place) -> str:
    return to_place(to_us(after[0]), after[1], after[2])


def usable(ids: Iterable[str]) -> list[str]:
    """The distinct ids, sorted, without those that no store can hold (halves of a surrogate pair)."""
    return sorted({name for name in ids if _encodable(name)})


def next_version() -> int:
    """A number that no other change has: milliseconds, then 20 random bits. Changes made later have higher ones."""
    return (time.time_ns() // 1_000_000 << 20) | secrets.randbits(20)


def to_episode(row: Record) -> Episode:
    """An episode from a row of ``EPISODE``."""
    e: dict[str, Any] = row["e"]
    return Episode(
        content=e["content"],
        episode_id=e["id"],
        session_id=e["session"],
        timestamp=to_time(e["at"]),
        context=json.loads(e["context"]) if "context" in e else {},
        outcome=e.get("outcome"),
        importance=e["importance"],
        position=e["position"],
        state=State(e["state"]),
        stored_at=to_time(e["stored_at"]),
        embedded_at=to_time_or_none(e.get("embedded_at")),
        generation=e.get("generation", 0),
        windows=e.get("windows", 0),
        cluster_id=row["cluster"],
        nearest=row["nearest"],
        duplicate_of=row["original"],
        archived=e.get("archived", False),
        stability=e.get("stability", 0.0),
        last_recalled_at=to_time_or_none(e.get("recalled_at")),
    )


def _digits(at: int, position: int) -> str:
    half = 1 << _POSITION_BITS - 1
    number = (at + (1 << _TIME_BITS - 1) << _POSITION_BITS) + max(-half, min(half - 1, position)) + half
    return b64encode(number.to_bytes((_TIME_BITS + _POSITION_BITS) // 8, "big")).translate(_SORTED).decode()


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
