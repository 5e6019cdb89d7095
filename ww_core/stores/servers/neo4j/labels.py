"""The clusters of published runs: ``(:Run)-[:FOUND]->(:Cluster)``, with what the run says of the cluster.

Writing, reading, shrinking, and wiping what was erased. ``label`` of the cluster itself is that of the latest run, for
people who look at the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from neo4j import Transaction

from ww_core.models import Cluster, Medoid
from ww_core.stores.servers.neo4j.rows import usable
from ww_core.stores.values import to_time_or_none, to_us
from ww_core.stores.wording import WITNESSES, without, words

_EXISTING = "UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id}) WHERE e.place IS NOT NULL RETURN e.id"
_WRITE = """MATCH (r:Run {ns: $ns, id: $run})
UNWIND $rows AS row MERGE (c:Cluster {ns: $ns, id: row.id}) ON CREATE SET c.session = $session
SET c.label = row.values.label
CREATE (r)-[f:FOUND {ns: $ns, session: $session, version: $version}]->(c) SET f += row.values"""
_READ = """MATCH ()-[f:FOUND]->(c:Cluster) WHERE f.ns = $ns AND f.session = $session AND f.version = $version
OPTIONAL MATCH (d:Episode {ns: $ns, id: f.medoid})
RETURN c.id AS id, properties(f) AS f, d.content AS medoid, [x IN f.exemplars WHERE EXISTS {
  MATCH (e:Episode {ns: $ns, id: x})-[m:MEMBER_OF]->(c)
  WHERE m.from <= f.version AND (m.to IS NULL OR m.to > f.version) }] AS exemplars
ORDER BY f.place"""
_DROP = """MATCH ()-[f:FOUND]->()
WHERE f.ns = $ns AND f.session = $session AND f.version > $above AND f.version < $below DELETE f"""
_SHRINK = """UNWIND $rows AS row MATCH (c:Cluster {ns: $ns, id: row[0]})<-[f:FOUND]-()
WHERE f.change <> 'gone' AND f.version >= row[1] AND (row[2] IS NULL OR f.version < row[2])
SET f.size = f.size - row[3]"""
_EMPTY = """UNWIND $ids AS id MATCH (c:Cluster {ns: $ns, id: id})
OPTIONAL MATCH (c)<-[f:FOUND]-() WHERE f.change <> 'gone' AND f.size <= 0 DELETE f
WITH DISTINCT c WHERE NOT EXISTS { (c)<-[:FOUND]-() } SET c.label = null"""
_DROP_MEDOIDS = "UNWIND $ids AS id MATCH ()-[f:FOUND]->() WHERE f.ns = $ns AND f.medoid = id SET f.medoid = null"
_CONCERNED = """UNWIND $ids AS id MATCH (e:Episode {ns: $ns, id: id})-[:MEMBER_OF]->(c:Cluster)
RETURN DISTINCT c.id, e.content
UNION UNWIND $ids AS id MATCH ()-[f:FOUND]->(c:Cluster) WHERE f.ns = $ns AND f.medoid = id
MATCH (e:Episode {ns: $ns, id: id}) RETURN DISTINCT c.id, e.content"""
_LABELS = """MATCH (c:Cluster {ns: $ns, id: $id})<-[f:FOUND]-() SET f.lock = true
RETURN f.version, f.label, f.keyphrases"""
_OTHERS = """MATCH (c:Cluster {ns: $ns, id: $id})<-[:MEMBER_OF]-(e:Episode) WHERE NOT e.id IN $erased
WITH DISTINCT e LIMIT $limit RETURN e.content"""
_RENAME = """MATCH (c:Cluster {ns: $ns, id: $id})<-[f:FOUND]-() WHERE f.version = $version
SET f.label = $label, f.keyphrases = $keyphrases,
  c.label = CASE c.label WHEN $old THEN $label ELSE c.label END"""


def write_clusters(
    tx: Transaction, ns: str, run_id: str, session: str, version: int, clusters: Sequence[Cluster]
) -> None:
    """Record a run's clusters."""
    names = {name for c in clusters for name in c.exemplars} | {c.medoid.episode_id for c in clusters if c.medoid}
    living = {row[0] for row in tx.run(_EXISTING, ns=ns, ids=usable(names))}
    rows = [
        {
            "id": c.cluster_id,
            "values": {
                "place": place,
                "size": c.size,
                "radius": c.radius,
                "change": c.change,
                "parents": list(c.parents),
                "medoid": c.medoid.episode_id if c.medoid and c.medoid.episode_id in living else None,
                "created_at": None if c.created_at is None else to_us(c.created_at),
                "exemplars": [name for name in c.exemplars if name in living],
                "cohesion": c.cohesion,
                "clustered_size": c.clustered_size,
                "strays": c.strays,
                "theme": c.theme_id,
                "label": c.label,
                "keyphrases": list(c.keyphrases),
            },
        }
        for place, c in enumerate(clusters)
    ]
    rows.sort(key=lambda row: str(row["id"]))
    tx.run(_WRITE, ns=ns, run=run_id, session=session, version=version, rows=rows).consume()


def read_clusters(tx: Transaction, ns: str, session: str, version: int) -> tuple[Cluster, ...]:
    """The clusters of a run in its own order; erased and corrected episodes no longer stand for them."""
    rows = tx.run(_READ, ns=ns, session=session, version=version)
    return tuple(_to_cluster(session, row["id"], row["f"], row["medoid"], row["exemplars"]) for row in rows)


def drop_clusters(tx: Transaction, ns: str, session: str, *, above: int, below: int) -> None:
    """Delete what the runs of the versions between the two found."""
    tx.run(_DROP, ns=ns, session=session, above=above, below=below).consume()


def shrink(tx: Transaction, ns: str, places: Iterable[tuple[str, int, int | None]]) -> None:
    """Count out members, each given as (cluster id, first version, version of its end); empty clusters go."""
    left = Counter(places)
    if left:
        rows = sorted(([*place, number] for place, number in left.items()), key=lambda row: (row[0], row[1]))
        tx.run(_SHRINK, ns=ns, rows=rows).consume()
        tx.run(_EMPTY, ns=ns, ids=sorted({place[0] for place in left})).consume()


def drop_medoids(tx: Transaction, ns: str, ids: Iterable[str]) -> None:
    """Let the episodes stand for no cluster any more."""
    tx.run(_DROP_MEDOIDS, ns=ns, ids=sorted(ids)).consume()


def wipe_words(tx: Transaction, ns: str, ids: Sequence[str]) -> None:
    """Take out of labels and key phrases what only the given episodes said. They still have content and memberships."""
    gone: dict[str, set[str]] = {}
    for cluster, content in tx.run(_CONCERNED, ns=ns, ids=sorted(ids)):
        gone.setdefault(cluster, set()).update(words(content))
    for cluster in sorted(gone):
        rows = [tuple(row) for row in tx.run(_LABELS, ns=ns, id=cluster)]
        said = {word for _, label, phrases in rows for word in words(" ".join([label, *phrases]))}
        own = gone[cluster] & said
        if own:
            for (content,) in tx.run(_OTHERS, ns=ns, id=cluster, erased=list(ids), limit=WITNESSES):
                own -= words(content)
        for version, label, phrases in rows if own else ():
            new_label, kept = without(own, label, phrases)
            names = {"label": new_label, "old": label, "keyphrases": kept}
            tx.run(_RENAME, names, ns=ns, id=cluster, version=version).consume()


def _to_cluster(session: str, name: str, f: dict[str, Any], medoid: str | None, exemplars: list[str]) -> Cluster:
    return Cluster(
        cluster_id=name,
        session_id=session,
        label=f["label"],
        size=f["size"],
        keyphrases=tuple(f["keyphrases"]),
        medoid=None if medoid is None else Medoid(f["medoid"], medoid),
        change=f["change"],
        parents=tuple(f["parents"]),
        radius=f["radius"],
        created_at=to_time_or_none(f.get("created_at")),
        exemplars=tuple(exemplars),
        cohesion=f["cohesion"],
        clustered_size=f["clustered_size"],
        strays=f["strays"],
        theme_id=f.get("theme", ""),
    )
