"""What faults cost: episodes lost and doubled under ``ww chaos``, and the time until all is in its place again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from ww.bench.figure import Bench, Figure, skipped
from ww_workers.chaos import trial

MINUTES = {False: 1.0, True: 5.0}
"""Of faults, by whether the scale is full."""
SEED = 1


def run(bench: Bench) -> Iterator[Figure]:
    """Nothing may be lost, doubled or come back; on a tiny scale nothing is started."""
    names = ("faults_lost", "faults_doubled", "faults_returned")
    why = "" if shutil.which("redis-server") else "no redis-server is installed here"
    if bench.scale.name == "tiny":
        why = "takes minutes: at quick and full scale only"
    if why:
        yield from (skipped(name, "episodes", why, 0, low_is_good=True) for name in names)
        yield skipped("faults_out_of_place", "checks", why, 0, low_is_good=True)
        yield skipped("faults_recovery", "s", why, low_is_good=True)
        return
    minutes = MINUTES[bench.scale.full]
    directory = trial.scratch(bench.directory / "chaos", bench.settings)
    report = trial.run(directory, minutes=minutes, seed=SEED, settings=bench.settings, say=lambda _: None)
    note = f"{report.acknowledged:,} acknowledged, {sum(report.faults.values())} faults of {len(report.faults)} kinds"
    for name, value in zip(names, (report.lost, report.doubled, report.returned), strict=True):
        yield Figure(name, value, "episodes", 0, low_is_good=True, note=note)
    out_of_place = sum(not check.ok for check in report.verification.checks) + (not report.quiet)
    yield Figure("faults_out_of_place", out_of_place, "checks", 0, low_is_good=True,
                 note=f"{len(report.verification.checks)} checks of ww verify, and that it came to rest")  # fmt: skip
    yield Figure("faults_recovery", report.recovery_seconds, "s", low_is_good=True,
                 note="from the last fault until nothing waits and every point is in its place")  # fmt: skip
