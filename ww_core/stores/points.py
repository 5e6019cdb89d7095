"""How points look in a vector store, whichever it is: their ids, their payload, and the terms a filter is made of.

No text of an episode is kept with its vectors. Session names and context values are kept as digests: they are only
ever compared, and a digest has a bounded length and says nothing to who reads the files.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b, sha1
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, UUID, uuid5

import numpy as np

from ww_core.models import Vector
from ww_core.stores.ports import Centroid, Fingerprint, Hit, Point, PointChange, StoredVectors, Where

EPISODE = "episode"
WINDOW = "window"
WINDOWS = "windows"
GENERATION = "generation"
SESSION = "session"
TIMESTAMP = "timestamp"
OUTCOME = "outcome"
TERMS = "terms"
IMPORTANCE = "importance"
CELLS = "cells"
STATE = "state"
KIND = "kind"
PIECES = "pieces"

LIVE, ARCHIVED = "live", "archived"
"""Values of STATE. A keyword, because both engines filter on a boolean a hundred times slower."""
UNPLACED = "-"
"""The cell of points that no run has looked at: a value of its own, because both engines find a missing one by looking
at every point, and one value beside others by its index. No cluster has this id."""

CENTROID_KIND = "centroid"
CENTROID_SESSION = "of_session"
CENTROID_RUN = "of_run"
CENTROID_CLUSTER = "of_cluster"
CENTROID_RADIUS = "radius"
CENTROID_VECTOR = "vector"
"""The centroid itself, float32 in base64. Centroids are read by run and never searched, and a vector of their own name
would make every episode's point reserve room for one."""

KEYWORDS: tuple[str, ...] = (
    EPISODE,
    SESSION,
    OUTCOME,
    TERMS,
    CELLS,
    STATE,
    KIND,
    CENTROID_SESSION,
    CENTROID_RUN,
)
"""Payload fields with a keyword index; beside them GENERATION is an integer and TIMESTAMP a datetime."""


# -- identity

_UUID_BITS = 0xF << 76 | 0x3 << 62
"""Where version and variant stand in the number of a UUID (RFC 9562)."""
_UUID_5 = 0x5 << 76 | 0x2 << 62
_VARIANT = {f"{digit:x}": f"{digit & 0x3 | 0x8:x}" for digit in range(16)}
"""The digit that holds the variant, from the one that was there."""


def digest(text: str) -> str:
    """128 bits of BLAKE2b as 32 hexadecimal characters."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def point_id(namespace: str, episode_id: str, window: int) -> UUID:
    """The same for every writer, so that writing twice is writing once."""
    return uuid5(NAMESPACE_URL, f"{namespace}\x1fepisode\x1f{episode_id}\x1f{window}")


def first_window(namespace: str, episode_id: str) -> int:
    """``point_id(namespace, episode_id, 0).int`` in a third of the time: a query asks about some hundred."""
    name = f"{namespace}\x1fepisode\x1f{episode_id}\x1f0"
    made = int.from_bytes(sha1(NAMESPACE_URL.bytes + name.encode(), usedforsecurity=False).digest()[:16], "big")
    return made & ~_UUID_BITS | _UUID_5


def first_windows(namespace: str, episode_ids: Iterable[str]) -> list[str]:
    """``point_id(namespace, episode_id, 0).hex`` of each, in a tenth of the time: a run asks about a million."""
    of_namespace = sha1(NAMESPACE_URL.bytes + f"{namespace}\x1fepisode\x1f".encode(), usedforsecurity=False)
    made = []
    for episode_id in episode_ids:
        one = of_namespace.copy()
        one.update(f"{episode_id}\x1f0".encode())
        digits = one.hexdigest()
        made.append(f"{digits[:12]}5{digits[13:16]}{_VARIANT[digits[16]]}{digits[17:32]}")
    return made


def centroid_id(namespace: str, session_id: str, attempt: str, cluster_id: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"{namespace}\x1fcentroid\x1f{session_id}\x1f{attempt}\x1f{cluster_id}")


def described(fingerprint: Fingerprint) -> str:
    """The model in words, with all that sets it apart."""
    normalised = "normalised" if fingerprint.normalised else "not normalised"
    return (
        f"{fingerprint.model} (revision {fingerprint.revision}, {fingerprint.dimension} dimensions, "
        f"{fingerprint.pooling} pooling, {normalised})"
    )


# -- payload


def moment(when: datetime) -> str:
    """RFC 3339 in UTC, always with six digits: indexed exactly to the microsecond, and in order as text."""
    return when.astimezone(UTC).isoformat(timespec="microseconds")


def terms(context: Mapping[str, str]) -> list[str]:
    """One digest for each key with its value."""
    return [digest(f"{len(key)}:{key}={value}") for key, value in sorted(context.items())]


def cells(named: Sequence[str]) -> list[str] | str:
    """The value of CELLS; a single one without a list, which the engine takes in a third of the time."""
    return list(named) if len(named) > 1 else next(iter(named), UNPLACED)


def payload(point: Point) -> dict[str, Any]:
    """What a new point carries beside its vectors."""
    made: dict[str, Any] = {
        EPISODE: point.episode_id,
        WINDOW: point.window,
        WINDOWS: point.windows,
        GENERATION: point.generation,
        SESSION: digest(point.session_id),
        TIMESTAMP: moment(point.timestamp),
        OUTCOME: point.outcome,
        IMPORTANCE: float(point.importance),
        CELLS: cells(point.cells),
        STATE: ARCHIVED if point.archived else LIVE,
    }
    if point.context:
        made[TERMS] = terms(point.context)
    if point.pieces:
        made[PIECES] = b64encode(point.pieces).decode("ascii")
    return made


def pieces(payload: Mapping[str, Any] | None) -> bytes:
    """``Point.pieces`` from a payload, empty where it has none."""
    return b64decode((payload or {}).get(PIECES, ""))


def changed_payload(change: PointChange) -> dict[str, Any]:
    """The fields that the change replaces."""
    changed: dict[str, Any] = {}
    if change.timestamp is not None:
        changed[TIMESTAMP] = moment(change.timestamp)
    if change.outcome is not None:
        changed[OUTCOME] = change.outcome
    if change.context is not None:
        changed[TERMS] = terms(change.context)
    if change.importance is not None:
        changed[IMPORTANCE] = float(change.importance)
    if change.cells is not None:
        changed[CELLS] = cells(change.cells)
    if change.archived is not None:
        changed[STATE] = ARCHIVED if change.archived else LIVE
    return changed


def by_payload(changes: Iterable[PointChange]) -> list[tuple[dict[str, Any], list[str]]]:
    """The payload fields to set, each with the ids of all episodes that get the same."""
    groups: dict[Any, tuple[dict[str, Any], list[str]]] = {}
    for change in changes:
        context = None if change.context is None else tuple(sorted(change.context.items()))
        key = (change.timestamp, change.outcome, context, change.importance, change.cells, change.archived)
        if key not in groups:
            groups[key] = (changed_payload(change), [])
        groups[key][1].append(change.episode_id)
    return [group for group in groups.values() if group[0]]


def by_difference(
    groups: Iterable[tuple[dict[str, Any], list[str]]], stored: Iterable[Mapping[str, Any] | None]
) -> list[tuple[dict[str, Any], list[str]]]:
    """Groups as ``by_payload`` makes them, without fields that the ``stored`` payloads of their points say already."""
    wanted: dict[str, dict[str, Any]] = {}
    for changed, episode_ids in groups:
        for episode_id in episode_ids:
            wanted.setdefault(episode_id, {}).update(changed)
    differing: dict[str, set[str]] = {}
    for payload in stored:
        if payload and (new := wanted.get(payload[EPISODE])):
            fields = differing.setdefault(payload[EPISODE], set())
            fields.update(field for field, value in new.items() if repr(payload.get(field, [])) != repr(value))
    found: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for episode_id, fields in differing.items():
        if fields:
            left = {field: wanted[episode_id][field] for field in sorted(fields)}
            found.setdefault(repr(left), (left, []))[1].append(episode_id)
    return list(found.values())


def centroid_payload(centroid: Centroid) -> dict[str, Any]:
    """Fields of its own, so that no filter on episodes ever meets a centroid."""
    return {
        KIND: CENTROID_KIND,
        CENTROID_SESSION: digest(centroid.session_id),
        CENTROID_RUN: centroid.attempt,
        CENTROID_CLUSTER: centroid.cluster_id,
        CENTROID_RADIUS: float(centroid.radius),
        CENTROID_VECTOR: b64encode(np.asarray(centroid.vector, "<f4").tobytes()).decode("ascii"),
    }


def centroids_of(payloads: Iterable[Mapping[str, Any] | None], session_id: str, attempt: str) -> list[Centroid]:
    """The centroids of one attempt from their payloads, by cluster id; one without its vector counts as absent."""
    found = [
        Centroid(
            cluster_id=str(payload[CENTROID_CLUSTER]),
            session_id=session_id,
            attempt=attempt,
            vector=np.frombuffer(b64decode(payload[CENTROID_VECTOR]), "<f4").astype(np.float32),
            radius=float(payload[CENTROID_RADIUS]),
        )
        for payload in payloads
        if payload and CENTROID_VECTOR in payload
    ]
    return sorted(found, key=lambda centroid: centroid.cluster_id)


# -- filters


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field holds one of the values."""

    field: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The time is ``since`` or later and before ``until``."""

    field: str
    since: str | None
    until: str | None


Term: TypeAlias = AnyOf | Between


def conditions(where: Where) -> list[Term]:
    """What a point must meet, all of it."""
    found: list[Term] = []
    if where.sessions:
        found.append(AnyOf(SESSION, tuple(digest(s) for s in where.sessions)))
    if where.episode_ids:
        found.append(AnyOf(EPISODE, where.episode_ids))
    if where.since is not None or where.until is not None:
        since = None if where.since is None else moment(where.since)
        until = None if where.until is None else moment(where.until)
        found.append(Between(TIMESTAMP, since, until))
    if where.outcomes:
        found.append(AnyOf(OUTCOME, where.outcomes))
    found.extend(AnyOf(TERMS, (term,)) for term in terms(where.context))
    if where.cells:
        found.append(AnyOf(CELLS, (*where.cells, UNPLACED) if where.uncelled else where.cells))
    if where.archived is not None:
        found.append(AnyOf(STATE, (ARCHIVED if where.archived else LIVE,)))
    return found


def holds(term: Term, payload: Mapping[str, Any]) -> bool:
    """Whether a point with this payload satisfies the term."""
    value = payload.get(term.field)
    if isinstance(term, AnyOf):
        return any(item in term.values for item in value) if isinstance(value, list) else value in term.values
    return (
        value is not None and (term.since is None or value >= term.since) and (term.until is None or value < term.until)
    )


# -- what both adapters do with points and answers


Scored = tuple[str, int, float]
"""Episode id, window, score."""


def newest(points: Iterable[Point]) -> list[Point]:
    """Each window once, of its highest generation; windows of an episode's older generations are left out."""
    highest: dict[str, int] = {}
    chosen: dict[tuple[str, int], Point] = {}
    for point in points:
        key = (point.episode_id, point.window)
        highest[point.episode_id] = max(point.generation, highest.get(point.episode_id, point.generation))
        if key not in chosen or chosen[key].generation < point.generation:
            chosen[key] = point
    return [point for point in chosen.values() if point.generation == highest[point.episode_id]]


def by_generation(points: Iterable[Point]) -> dict[int, list[Point]]:
    """Points that one condition on the stored generation can be written with."""
    groups: dict[int, list[Point]] = {}
    for point in points:
        groups.setdefault(point.generation, []).append(point)
    return groups


def best_windows(scored: Iterable[Scored], limit: int) -> list[Hit]:
    """Each episode once with its best window, best first, equal scores by id."""
    best: dict[str, tuple[float, str, int]] = {}
    for episode_id, window, score in scored:
        known = best.get(episode_id)
        if known is None or -score < known[0]:
            best[episode_id] = (-score, episode_id, window)
    return [Hit(episode_id, window, -score) for score, episode_id, window in sorted(best.values())[:limit]]


def mean_vectors(episode_ids: Sequence[str], owners: Sequence[str], rows: Vector) -> StoredVectors:
    """The normalised mean of each episode's windows, in the order asked.

    ``owners`` names the episode of each row of ``rows`` float32 (n, d).
    """
    of = {owner: row for row, owner in enumerate(owners)}
    means = rows
    if len(of) < len(owners):
        of = {}
        place = np.array([of.setdefault(owner, len(of)) for owner in owners])
        means = np.zeros((len(of), rows.shape[1]), np.float32)
        np.add.at(means, place, rows)
        means /= np.bincount(place)[:, None].astype(np.float32)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means = (means / np.where(lengths > 0, lengths, 1)).astype(np.float32, copy=False)
    return in_order(episode_ids, list(of), means)


def in_order(episode_ids: Sequence[str], owners: Sequence[str], rows: Vector) -> StoredVectors:
    """The ``rows`` (n, d) of their ``owners`` (n,) in the order asked, without those that there are none of."""
    if owners == episode_ids:
        return StoredVectors(owners, rows)
    of = {owner: row for row, owner in enumerate(owners)}
    names = [name for name in episode_ids if name in of]
    return StoredVectors(names, rows[[of[name] for name in names]])
