"""Large embedded stores, which a run of benchmarks fills and consolidates once, whichever of them asks first."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass

from ww.bench.apart import aside, most_resident
from ww.bench.corpus import Corpus, fingerprint
from ww.bench.figure import Bench
from ww.bench.filled import consolidate, fill
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.ram import available

LARGE = 1_000_000
"""Episodes from which memory is looked at before they are stored."""
FREE_GIB = 14.0
"""Memory that must be free for them."""
LONG = 3600
"""Seconds that a run over all of them may take."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took to make a store."""

    storing: float
    """GiB that the process which stored the episodes had at its most."""
    consolidating: float
    """The same of the one that consolidated them."""
    clusters: int


def lacking(size: int) -> str:
    """Why ``size`` episodes cannot be stored here; empty where they can."""
    free = available() / 2**30
    if size < LARGE or free >= FREE_GIB:
        return ""
    return f"{free:.0f} GiB of memory are free, {FREE_GIB:.0f} are wanted"


def kept(bench: Bench, corpus: Corpus) -> tuple[Settings, Cost]:
    """Of a store with the episodes of ``corpus``, consolidated, that no process has open: settings that open it, and
    what it took. It is known by its size, and stays until the last benchmark has run."""
    settings = bench.kept(str(corpus.size), consolidation_time_limit=LONG)
    record = settings.data_dir.with_suffix(".json")
    if not record.exists():
        shutil.rmtree(settings.data_dir, ignore_errors=True)  # what broke halfway would be there already
        bench.say(f"  storing {corpus.size:,} episodes")
        storing = aside(bench, _store, settings, corpus)
        bench.say("  consolidating them")
        cost = Cost(storing, *aside(bench, _consolidate, settings))
        record.write_text(json.dumps(asdict(cost)), encoding="utf-8")
    return settings, Cost(**json.loads(record.read_text(encoding="utf-8")))


def _store(settings: Settings, corpus: Corpus) -> float:
    """GiB that it takes."""
    deployment = Deployment(settings)
    deployment.vectors.ensure(fingerprint(corpus.queries.shape[1]))
    fill(corpus, deployment)
    deployment.close()
    return most_resident()


def _consolidate(settings: Settings) -> tuple[float, int]:
    """GiB that it takes, and how many clusters there are."""
    deployment = Deployment(settings)
    made = consolidate(deployment)
    deployment.close()
    return most_resident(), len(made.clusters)
