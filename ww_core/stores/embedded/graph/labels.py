"""The clusters of published runs, with their labels and key phrases: writing, reading, and wiping what was erased."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from ww_core.models import Cluster, Medoid
from ww_core.stores.embedded.graph.rows import append_body, as_list, empty_bodies
from ww_core.stores.values import to_time_or_none, to_us
from ww_core.stores.wording import WITNESSES, without, words

_CLUSTERS = """SELECT n.cluster_id, t.session_id, c.size, c.radius, c.change, c.parents, c.created_at, c.cohesion,
  c.clustered_size, c.strays, b.content, b.context, d.episode_id, db.content, c.exemplars, c.session, c.cluster, c.theme
  FROM cluster c JOIN cluster_name n ON n.cluster = c.cluster JOIN session t ON t.session = c.session
  JOIN body b ON b.body = c.body LEFT JOIN episode d ON d.seq = c.medoid LEFT JOIN body db ON db.body = d.body
  WHERE c.session = ? AND c.version = ? ORDER BY c.place"""
_MEMBERS_AMONG = """SELECT e.seq, e.episode_id FROM json_each(?1) j CROSS JOIN episode e ON e.seq = j.value
  WHERE e.at IS NOT NULL AND EXISTS (SELECT 1 FROM membership m WHERE m.session = e.session AND m.seq = e.seq
    AND m.cluster = ?2 AND m.from_version <= ?3 AND (m.to_version IS NULL OR m.to_version > ?3))"""
_CONCERNED = """SELECT DISTINCT c.body, c.session, c.cluster FROM cluster c WHERE c.medoid = ?1
  UNION SELECT c.body, c.session, c.cluster FROM membership m JOIN cluster c
    ON c.session = m.session AND c.cluster = m.cluster
    WHERE m.session = (SELECT session FROM episode WHERE seq = ?1) AND m.seq = ?1"""
_OTHERS = """SELECT b.content FROM (SELECT DISTINCT seq FROM membership
    WHERE session = ?1 AND cluster = ?2 AND seq NOT IN (SELECT value FROM json_each(?3)) LIMIT ?4) o
  JOIN episode e ON e.seq = o.seq JOIN body b ON b.body = e.body"""


def write_clusters(
    db: sqlite3.Connection, session: int, version: int, base: int, clusters: Sequence[Cluster], keys: dict[str, int]
) -> None:
    """Record a run's clusters. ``keys``: the number of every cluster id."""
    names = {name for c in clusters for name in c.exemplars} | {c.medoid.episode_id for c in clusters if c.medoid}
    query = """SELECT e.episode_id, e.seq FROM json_each(?) j CROSS JOIN episode e ON e.episode_id = j.value
      WHERE e.at IS NOT NULL"""
    seqs: dict[str, int] = dict(db.execute(query, (as_list(names),)).fetchall())
    texts = {
        cluster: (body, label, phrases)
        for cluster, body, label, phrases in db.execute(
            """SELECT c.cluster, c.body, b.content, b.context FROM cluster c JOIN body b ON b.body = c.body
              WHERE c.session = ? AND c.version = ?""",
            (session, base),
        )
    }
    rows: list[tuple[Any, ...]] = []
    for place, c in enumerate(clusters):
        key, phrases = keys[c.cluster_id], json.dumps(c.keyphrases, ensure_ascii=False)
        body, *text = texts.get(key, (0, None, None))
        if text != [c.label, phrases]:
            body = append_body(db, c.label, phrases)
        medoid = None if c.medoid is None else seqs.get(c.medoid.episode_id)
        exemplars = json.dumps([seqs[name] for name in c.exemplars if name in seqs])
        created = None if c.created_at is None else to_us(c.created_at)
        numbers = (c.cohesion, c.clustered_size, c.strays)
        rows.append(
            (
                *(session, version, key, place, c.size, c.radius, c.change, json.dumps(c.parents), medoid, created),
                *(exemplars, *numbers, body, c.theme_id),
            )
        )
    db.executemany(f"INSERT INTO cluster VALUES ({', '.join('?' * 16)})", rows)


def read_clusters(db: sqlite3.Connection, session: int, version: int) -> tuple[Cluster, ...]:
    """The clusters of a run in its own order; erased and corrected episodes no longer stand for them."""
    return tuple(_to_cluster(db, row, version) for row in db.execute(_CLUSTERS, (session, version)).fetchall())


def drop_clusters(db: sqlite3.Connection, condition: str, values: Sequence[int]) -> None:
    """Delete the clusters that ``condition`` selects, and wipe the texts that no other run shares."""
    bodies = {body for (body,) in db.execute(f"DELETE FROM cluster WHERE {condition} RETURNING body", values)}
    _wipe_unused(db, bodies)


def wipe_words(db: sqlite3.Connection, seqs: Sequence[int]) -> None:
    """Take out of labels and key phrases what only the given episodes said. They still have content and memberships."""
    erased = as_list(seqs)
    gone: dict[tuple[int, int, int], set[str]] = {}
    for seq in seqs:
        concerned = db.execute(_CONCERNED, (seq,)).fetchall()
        if not concerned:
            continue
        query = "SELECT b.content FROM episode e JOIN body b ON b.body = e.body WHERE e.seq = ?"
        said = words(db.execute(query, (seq,)).fetchone()[0])
        for row in concerned:
            gone.setdefault(row, set()).update(said)
    for (body, session, cluster), said in gone.items():
        label, phrases = db.execute("SELECT content, context FROM body WHERE body = ?", (body,)).fetchone()
        keyphrases: list[str] = json.loads(phrases or "[]")
        own = said & words(" ".join([label or "", *keyphrases]))
        others = db.execute(_OTHERS, (session, cluster, erased, WITNESSES))
        while own and (row := others.fetchone()) is not None:
            own -= words(row[0])
        if own:
            label, kept = without(own, label or "", keyphrases)
            fresh = append_body(db, label, json.dumps(kept, ensure_ascii=False))
            db.execute("UPDATE cluster SET body = ? WHERE body = ?", (fresh, body))
            _wipe_unused(db, [body])


def _wipe_unused(db: sqlite3.Connection, bodies: Iterable[int]) -> None:
    query = """SELECT j.value FROM json_each(?) j
      WHERE NOT EXISTS (SELECT 1 FROM cluster c WHERE c.body = j.value)"""
    empty_bodies(db, [body for (body,) in db.execute(query, (as_list(bodies),)).fetchall()])


def _to_cluster(db: sqlite3.Connection, row: Sequence[Any], version: int) -> Cluster:
    exemplars: list[int] = json.loads(row[14])
    names = dict(db.execute(_MEMBERS_AMONG, (row[14], row[16], version)).fetchall()) if exemplars else {}
    return Cluster(
        cluster_id=row[0],
        session_id=row[1],
        label=row[10],
        size=row[2],
        keyphrases=tuple(json.loads(row[11])),
        medoid=None if row[13] is None else Medoid(row[12], row[13]),
        change=row[4],
        parents=tuple(json.loads(row[5])),
        radius=row[3],
        created_at=to_time_or_none(row[6]),
        exemplars=tuple(names[seq] for seq in exemplars if seq in names),
        cohesion=row[7],
        clustered_size=row[8],
        strays=row[9],
        theme_id=row[17],
    )
