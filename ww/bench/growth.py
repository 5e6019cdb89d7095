"""What a consolidation costs in time and memory by how much is stored, each run in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ww.bench.apart import aside, most_resident
from ww.bench.corpus import Corpus, drawn, fingerprint, made_up
from ww.bench.figure import Bench, Figure, skipped, wall
from ww.bench.filled import SESSION, consolidate, fill
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.models import Run

FIRST_SECONDS, FIRST_GIB, HOURLY_SECONDS, GROWTH = 120.0, 4.0, 10.0, 1.5
SERVERS_SECONDS = 360.0
"""Targets: of the first run over 1 000 000 episodes, of one with 5 000 new among them, and of the same by 10 000; of a
first run on Neo4j and Qdrant."""
STATED = 1_000_000
"""Episodes that they are stated for."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run in a process of its own."""

    opening: float
    """Seconds that opening the stores took, which a worker has done long before."""
    seconds: float
    """From the request to the end of everything, what follows the publication included."""
    cpu: float
    """The same in seconds of CPU time, whoever else uses the machine."""
    gib: float
    """Most that was resident in the process, the pages of the stores' files included."""
    run: Run


def run(bench: Bench) -> Iterator[Figure]:
    """The first run over everything, then a run with few new episodes, at two sizes."""
    few, many, new = bench.scale.grown
    tiny = bench.scale.name == "tiny"  # the model takes seconds to load
    corpus = made_up(many + new, bench.scale.queries) if tiny else drawn(bench, many + new)
    origin = "random vectors around topics" if tiny else "vectors made from real ones with noise"
    hourly = {}
    for size in (few, many):
        settings = bench.place(f"grown-{size}", consolidation_time_limit=3600)
        bench.say(f"storing {size:,} episodes")
        aside(bench, _fill, settings, corpus, 0, size)
        bench.say("first run")
        first = aside(bench, _consolidate, settings)
        aside(bench, _fill, settings, corpus, size, size + new)
        bench.say(f"run with {new:,} new")
        hourly[size] = aside(bench, _consolidate, settings)
    unjudged = bench.scale.at_full(f"{STATED:,}")
    promised: dict[str, Any] = {"low_is_good": True, "unjudged": unjudged}
    note = (
        f"{many:,} {origin}, {len(first.run.clusters)} clusters, {first.run.noise:,} unclustered; "
        f"visible after {first.run.seconds:.1f} s, {first.cpu:.0f} s of CPU"
    )
    yield Figure("first_run", first.seconds, "s", FIRST_SECONDS, note=note, **promised)
    note = "peak of the process, mapped pages of the stores included"
    yield Figure("first_run_memory", first.gib, "GiB", FIRST_GIB, note=note, **promised)
    note = f"{new:,} new among {many:,}; {hourly[many].gib:.2f} GiB, {hourly[many].cpu:.1f} s of CPU"
    yield Figure("hourly_run", hourly[many].seconds, "s", HOURLY_SECONDS, note=note, **promised)
    cold = hourly[many].opening + hourly[many].seconds
    yield Figure("hourly_run_cold", cold, "s", low_is_good=True, note="opening the stores included")
    growth = hourly[many].cpu / hourly[few].cpu
    note = (
        f"{new:,} new, from {few:,} to {many:,} stored: {hourly[few].cpu:.2f} s to {hourly[many].cpu:.2f} s of CPU, "
        f"{hourly[few].seconds:.2f} s to {hourly[many].seconds:.2f} s on the clock"
    )
    yield Figure("hourly_growth", growth, "x", GROWTH, note=note, **promised)
    yield _on_servers(bench, corpus, many)


def _on_servers(bench: Bench, corpus: Corpus, size: int) -> Figure:
    """The first run over the first ``size`` episodes, the record on Neo4j and the vectors on Qdrant, in a namespace of
    its own, which is emptied."""
    uri, url = os.environ.get("NEO4J_URI"), os.environ.get("QDRANT_URL")
    if not uri or not url:
        why = "NEO4J_URI and QDRANT_URL are not both set"
        return skipped("first_run_servers", "s", why, SERVERS_SECONDS, low_is_good=True)
    settings = bench.place(
        "grown-on-servers",
        consolidation_time_limit=3600,
        neo4j_uri=uri,
        neo4j_password=os.environ.get("NEO4J_PASSWORD", ""),
        qdrant_url=url,
        namespace=f"bench{uuid4().hex[:12]}",
    )
    bench.say(f"storing {size:,} episodes on Neo4j and Qdrant")
    try:
        aside(bench, _fill, settings, corpus, 0, size)
        bench.say("first run")
        cost = aside(bench, _consolidate, settings)
    finally:
        aside(bench, _empty, settings)
    note = f"{size:,} on Neo4j and Qdrant; visible after {cost.run.seconds:.1f} s, {cost.cpu:.0f} s of this side's CPU"
    unjudged = bench.scale.at_full(f"{STATED:,}")
    return Figure(
        "first_run_servers", cost.seconds, "s", SERVERS_SECONDS, low_is_good=True, note=note, unjudged=unjudged
    )


def _fill(settings: Settings, corpus: Corpus, low: int, high: int) -> None:
    """Store the embedded episodes from ``low`` to before ``high``."""
    deployment = Deployment(settings)
    deployment.vectors.ensure(fingerprint(corpus.queries.shape[1]))
    fill(corpus, deployment, low, high)
    deployment.close()


def _consolidate(settings: Settings) -> Cost:
    deployment = Deployment(settings)
    opening = wall(deployment.vectors.ping)
    started, worked = time.perf_counter(), time.process_time()
    done = consolidate(deployment)
    seconds, worked = time.perf_counter() - started, time.process_time() - worked
    deployment.close()
    return Cost(opening, seconds, worked, most_resident(), done)


def _empty(settings: Settings) -> None:
    """Erase what was stored on servers."""
    from ww_core.stores.servers.qdrant import QdrantVectorStore

    deployment = Deployment(settings)
    deployment.graph.tombstone(session_id=SESSION)
    deployment.close()
    vectors = QdrantVectorStore(settings)
    vectors.drop()
    vectors.close()
