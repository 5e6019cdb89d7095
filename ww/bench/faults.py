"""What faults cost: episodes lost and doubled under ``ww chaos``, and the time until all is in its place again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ww.bench.figure import Bench, Figure, skipped
from ww_workers.chaos import trial

MINUTES = {False: 1.0, True: 5.0}
"""Of faults, by whether the scale is full."""
SEED = 1
COUNTED = ("faults_lost", "faults_doubled", "faults_returned")
SERVERS = {
    "neo4j": ("Neo4j", "NEO4J_HOME", "the home of a Neo4j server"),
    "qdrant": ("Qdrant", "QDRANT_BINARY", "the program of a Qdrant server"),
}
"""Chaos kills what it works on, so it starts servers of its own: by kind of server its name, and the variable that says
where one is installed."""


def run(bench: Bench) -> Iterator[Figure]:
    """Nothing may be lost, doubled or come back; on a tiny scale nothing is started.

    Servers are killed and frozen in a second trial, with those that are installed.
    """
    why = "" if shutil.which("redis-server") else "no redis-server is installed here"
    if bench.scale.name == "tiny":
        why = "takes minutes: at quick and full scale only"
    yield from _embedded(bench, why)
    yield from _on_servers(bench, why)


def _embedded(bench: Bench, why: str) -> Iterator[Figure]:
    if why:
        yield from (skipped(name, "episodes", why, 0, low_is_good=True) for name in COUNTED)
        yield skipped("faults_out_of_place", "checks", why, 0, low_is_good=True)
        yield skipped("faults_recovery", "s", why, low_is_good=True)
        return
    report = _trial(bench, {})
    note = f"{report.acknowledged:,} acknowledged, {sum(report.faults.values())} faults of {len(report.faults)} kinds"
    for name, value in zip(COUNTED, (report.lost, report.doubled, report.returned), strict=True):
        yield Figure(name, value, "episodes", 0, low_is_good=True, note=note)
    yield Figure("faults_out_of_place", _out_of_place(report), "checks", 0, low_is_good=True,
                 note=f"{len(report.verification.checks)} checks of ww verify, and that it came to rest")  # fmt: skip
    yield Figure("faults_recovery", report.recovery_seconds, "s", low_is_good=True,
                 note="from the last fault until nothing waits and every point is in its place")  # fmt: skip


def _on_servers(bench: Bench, why: str) -> Iterator[Figure]:
    installed = {kind: Path(os.environ[key]) for kind, (_, key, _) in SERVERS.items() if os.environ.get(key)}
    report = _trial(bench, installed) if installed and not why else None
    for kind, (_, key, what) in SERVERS.items():
        if report is None or kind not in installed:
            yield skipped(_name(kind), "episodes", why or f"{key} does not name {what}", 0, low_is_good=True)
        else:
            yield outage(kind, report)


def outage(kind: str, report: trial.Report) -> Figure:
    """What a trial lost or doubled in which a server of that kind was killed and frozen."""
    times = sum(number for fault, number in report.faults.items() if fault.startswith(f"{kind}_"))
    out_of_place = _out_of_place(report)
    note = (
        f"lost, doubled or back; {times} outages of {SERVERS[kind][0]} among {sum(report.faults.values())} faults, "
        f"{report.acknowledged:,} acknowledged, {out_of_place} checks failed, all in its place after "
        f"{report.recovery_seconds:g} s"
    )
    wrong = report.lost + report.doubled + report.returned + out_of_place
    return Figure(_name(kind), wrong, "episodes", 0, low_is_good=True, note=note,
                  unjudged="" if times else "no outage came about in time")  # fmt: skip


def _name(kind: str) -> str:
    return f"faults_{kind}_outage"


def _trial(bench: Bench, servers: dict[str, Path]) -> trial.Report:
    directory = trial.scratch(bench.directory / "-".join(("chaos", *servers)), bench.settings)
    minutes = MINUTES[bench.scale.full]
    return trial.run(directory, minutes=minutes, seed=SEED, settings=bench.settings, say=lambda _: None, **servers)


def _out_of_place(report: trial.Report) -> int:
    return sum(not check.ok for check in report.verification.checks) + (not report.quiet)
