"""Every benchmark measures what it says, beside a peer where one exists; at full scale it is judged."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest

from tests.performance.breaking import HERE
from tests.performance.conftest import Measured
from tests.processes import BOUND, ROOT, clean_environment, until
from ww.bench import (
    BENCHMARKS,
    Figure,
    Scale,
    apart,
    capacity,
    conversations,
    faults,
    kept,
    measure,
    registry,
    searching,
    stages,
)
from ww.bench.corpus import made_up
from ww.bench.embedding import _has_bfloat16
from ww.bench.exact import ExactScan, ScannedStore
from ww.bench.figure import DAY, SCALES, Bench, skipped
from ww.bench.filled import filled
from ww.bench.gain import gain, verdict
from ww.bench.registry import Entry
from ww.cli.bench import FIELDS
from ww.cli.run import run
from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import InvalidInput
from ww_core.models import Check, Verification
from ww_core.stores.ports import BM25, CONTENT, Search, Where
from ww_workers.chaos.trial import Report

PROMISED: Mapping[str, Mapping[str, float]] = {
    "store": {
        "store_batch": 20_000,
        "store_batch_while_embedding": 8_000,
        "store_batch_neo4j": 5_000,
        "store_p95": 5,
        "store_p95_while_embedding": 15,
        "store_p95_neo4j": 15,
    },
    "encoder": {"encoder": 2.0 if _has_bfloat16() else 1.7, "encoder_cosine": 0.999},
    "drain": {"drain": 0.95, "drain_gpu": 0.95, "drain_with_context": math.nan},
    "recall": {
        "recall_p95": 20,
        "recall_million_p95": 50,
        "hierarchical_search": 5,
        "hierarchical_recall_at_10": 0.95,
    },
    "consolidation": {
        "consolidation_2000": 0.5,
        "first_run": 120,
        "first_run_memory": 4,
        "first_run_servers": 360,
        "hourly_run": 10,
        "banking77_ari": 0.57,
        "clinc150_ari": 0.72,
    },
    "locomo": {
        "locomo_recall_at_5": 0.73,
        "locomo_recall_at_10": 0.82,
        "locomo_late_recall_at_5": 0.76,
        "locomo_late_recall_at_10": 0.85,
        "locomo_lost_unseen": 0.03,
        "locomo_late_lost_unseen": 0.03,
    },
    "capacity": {
        f"capacity_{what}_{size}": 0.3
        for what in ("disk_graph", "disk_vectors", "memory")
        for size in (10_000, 100_000, 1_000_000)
    },
    "guide": dict.fromkeys(
        (
            *("store_batch", "vector_upsert", "embedding_cache", "embedding_cache_size", "qdrant_grpc"),
            *("qdrant_pool_size", "neo4j_pool_size", "neo4j_pool_size_100", "hierarchical_search"),
        ),
        math.nan,
    ),
    "faults": {
        "faults_lost": 0,
        "faults_doubled": 0,
        "faults_recovery": math.nan,
        "faults_neo4j_outage": 0,
        "faults_qdrant_outage": 0,
    },
}
"""What must be listed at every scale, on every machine, with its target; nan where there is none."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_measures_and_compares(name: str, scale: Scale, measured: Measured) -> None:
    if name == "recording" and not scale.full:
        pytest.skip("test_recording.py measures it, at the same size")
    found = measured(name)
    targets = {figure.name: figure.target for figure in found}
    promised = PROMISED.get(name, {})
    assert set(promised) <= set(targets)
    assert {figure: targets[figure] for figure in promised} == pytest.approx(promised, nan_ok=True)
    for figure in found:
        print(f"{figure.name}: {figure.value:.4g} {figure.unit}, ratio {figure.ratio:.3g}, met {figure.met}")
        assert math.isfinite(figure.value) or figure.note, figure.name
        if name == "store" and math.isfinite(figure.value):
            assert figure.peer_name, figure.name
        if figure.peer_name and math.isfinite(figure.value):
            assert figure.ratio > 0, figure.name
    if scale.full:
        assert [figure.name for figure in found if figure.met is False] == []


def test_the_page_says_how_long_everything_takes() -> None:
    (stated,) = re.findall(r"in some (\d+) minutes", (ROOT / "docs" / "performance.md").read_text(encoding="utf-8"))
    assert int(stated) == pytest.approx(sum(entry.quick for entry in BENCHMARKS.values()), abs=2)
    assert [name for name, entry in BENCHMARKS.items() if entry.quick > entry.full] == []


def test_a_figure_is_judged_in_the_direction_that_is_good() -> None:
    assert Figure("rate", 10, "1/s", target=9).met is True
    assert Figure("rate", 8, "1/s", target=9).met is False
    assert Figure("time", 8, "ms", target=9, low_is_good=True).met is True
    assert Figure("time", 10, "ms", target=9, low_is_good=True).met is False
    slow = Figure("time", 10, "ms", target=2, peer=30, judged="ratio", low_is_good=True)
    assert (slow.ratio, slow.met) == (3, True)
    assert Figure("rate", 10, "1/s", target=2, peer=6, judged="ratio").met is False
    assert Figure("rate", 10, "1/s").met is None
    assert Figure("rate", math.nan, "1/s", target=1).met is None


def test_a_figure_says_whether_it_is_judged() -> None:
    quick, full = SCALES["quick"].at_full("100 000 episodes"), SCALES["full"].at_full("100 000 episodes")
    assert (quick, full) == ("judged at 100 000 episodes (--scale full)", "")
    found = Figure("time", 8, "ms", 9, low_is_good=True, note="10 000 episodes", unjudged=quick)
    assert (found.met, found.state) == (None, "not judged")
    assert found.remark == "10 000 episodes; judged at 100 000 episodes (--scale full)"
    assert Figure("time", 8, "ms", 9, low_is_good=True, unjudged=full).state == "met"
    assert Figure("time", 10, "ms", 9, low_is_good=True).state == "missed"
    assert Figure("time", 10, "ms").state is None


def test_nobody_checks_the_alerts_of_what_is_measured(tmp_path: Path) -> None:
    """What a benchmark does to a cache is no news."""
    bench = Bench(tmp_path, SCALES["tiny"], Settings(alert_interval=5))
    assert bench.place("searched").alert_interval == DAY
    assert bench.place("searched", alert_interval=1).alert_interval == 1


def test_a_figure_that_is_not_measured_keeps_its_target() -> None:
    found = skipped("rate", "1/s", "no server is named", 5, judged="ratio", low_is_good=True)
    assert (found.target, found.judged, found.low_is_good, found.unit) == (5, "ratio", True, "1/s")
    assert (found.met, found.state, found.note) == (None, "not judged", "not measured: no server is named")


def test_a_gain_is_how_much_longer_it_took_before() -> None:
    turns: list[int] = []
    found = gain("less", lambda _: sum(range(200_000)), turns.append, 4, peer="more", note="a sum")
    assert (found.ratio > 10, found.note, turns) == (True, "a sum: helps", [0, 0, 1, 2, 3])
    assert [verdict(ratio) for ratio in (1.3, 1.0, 0.7)] == ["helps", "does not help here", "costs time here"]


def test_stages_are_those_of_an_episode_and_of_a_recall(measured: Measured) -> None:
    found = measured("stages")
    by_unit = {unit: [f for f in found if f.unit == unit] for unit in ("ms an episode", "ms a recall")}
    assert [[f.name for f in figures] for figures in by_unit.values()] == [list(stages.EPISODE), list(stages.RECALL)]
    assert all(figure.value > 0 for figure in found)
    for figures in by_unit.values():
        shares = [float(figure.note.split("%")[0]) for figure in figures]
        assert sum(shares) == pytest.approx(100, abs=0.5)


def test_a_large_store_is_made_once_whichever_benchmark_asks_first(tmp_path: Path) -> None:
    said: list[str] = []
    first, second = (
        Bench(tmp_path / name, SCALES["tiny"], Settings(data_dir=tmp_path), said.append, tmp_path)
        for name in ("recall", "capacity")
    )
    corpus = made_up(300, 2)
    settings, cost = kept.kept(first, corpus)
    assert [line.strip() for line in said] == ["storing 300 episodes", "consolidating them"]
    assert min(cost.storing, cost.consolidating) > 0
    assert kept.kept(second, corpus) == (settings, cost)
    assert len(said) == 2
    deployment = Deployment(settings)
    assert deployment.graph.counts().embedded == 300
    deployment.close()


def test_a_large_store_that_broke_halfway_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, SCALES["tiny"], Settings(data_dir=tmp_path))
    consolidate = Mock(side_effect=[MemoryError, (1.0, 1)])
    stored: list[int] = []
    monkeypatch.setattr(kept, "_consolidate", consolidate)
    with pytest.raises(MemoryError):
        kept.kept(bench, made_up(300, 2))
    monkeypatch.setattr(kept, "fill", lambda corpus, deployment: stored.append(deployment.graph.counts().acknowledged))
    kept.kept(bench, made_up(300, 2))
    assert stored == [0], "nothing of the first attempt is there"


def test_the_largest_store_is_made_asked_and_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At full scale, with few episodes in the place of a million."""
    monkeypatch.setattr(apart, "alone", lambda work, *args: work(*args))
    monkeypatch.setattr(searching, "MILLION", 400)
    bench = Bench(tmp_path, SCALES["full"], Settings(data_dir=tmp_path))
    found = {figure.name: figure for figure in searching._million(bench, made_up(20, 10))}
    assert list(found) == [
        *("recall_million_p95", "recall_million_first_p95", "recall_million_flat_p95"),
        "recall_million_memory",
    ]
    assert all(figure.value > 0 for figure in found.values())
    assert "storing" in found["recall_million_memory"].note


def test_what_benchmarks_share_is_gone_with_the_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = Entry(HERE, "sharing", "a test", 1, 2)
    monkeypatch.setattr(registry, "BENCHMARKS", {"first": entry, "second": entry})
    found = list(measure(["first", "second"], Settings(data_dir=tmp_path), SCALES["tiny"]))
    assert [figure.value for figure in found] == [0, 1], "the second finds what the first left"
    assert not Path(found[0].note).exists()


def test_a_million_is_not_tried_without_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "available", lambda: 2**30)
    assert (kept.lacking(100_000), kept.lacking(1_000_000)) == ("", "1 GiB of memory are free, 14 are wanted")


def test_the_plan_is_off_by_a_share_of_what_is_measured() -> None:
    found = capacity._figure("memory", 1000, 1200, "some")
    assert (found.value, found.met) == (pytest.approx(0.2), True)
    assert [capacity._figure("memory", 1000, planned, "some").met for planned in (690, 710, 1290, 1310)] == [
        *(False, True),
        *(True, False),
    ]
    assert capacity._figure("memory", 1000, 9000, "few", "judged from 10,000 on").state == "not judged"


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no benchmark 'nonsense'"):
        list(measure(["nonsense"], Settings(data_dir=tmp_path), Scale()))


@pytest.mark.parametrize(("namespace", "why"), [("ww", "ValueError: this one breaks"), ("killed", "ended with -9")])
def test_a_benchmark_that_breaks_or_dies_loses_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: str, why: str
) -> None:
    benchmarks = {"first": Entry(HERE, "breaking", "a test", 1, 2), "second": Entry(HERE, "starting", "a test", 1, 2)}
    monkeypatch.setattr(registry, "BENCHMARKS", benchmarks)
    said: list[str] = []
    settings = Settings(data_dir=tmp_path, namespace=namespace)
    found = list(measure(["first", "second"], settings, SCALES["tiny"], say=said.append, apart=True))
    assert [figure.name for figure in found] == ["before", "first", "parent"]
    assert (found[0].met, found[1].met, found[1].failed) == (True, False, True)
    assert why in found[1].note
    assert found[2].value != os.getpid(), "each has a process of its own"
    assert "starting" in said
    assert "2 min in all" in said[0]


@pytest.mark.parametrize("everybody", [True, False], ids=["on a terminal", "the command alone"])
def test_ctrl_c_ends_what_a_benchmark_started(tmp_path: Path, everybody: bool) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", HERE, str(tmp_path / "data")],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        server = next(int(line.split()[1]) for line in process.stdout if line.startswith("server"))
        try:
            (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
            assert process.wait(BOUND) in (1, -signal.SIGINT)
            until(lambda: not psutil.pid_exists(server), within=5, what="the server is ended")
        finally:
            if psutil.pid_exists(server):
                os.kill(server, signal.SIGKILL)


def test_a_scan_answers_by_meaning_among_everything_and_the_store_the_rest(tmp_path: Path) -> None:
    corpus = made_up(200, 2)
    with filled(corpus, Bench(tmp_path, SCALES["tiny"], Settings(data_dir=tmp_path)), "scanned") as deployment:
        store = ScannedStore(deployment.vectors, ExactScan(corpus))
        everything = Search(CONTENT, corpus.queries[0], limit=3)
        one = Search(CONTENT, corpus.queries[1], Where(episode_ids=(corpus.name(7),)), limit=3)
        words = Search(BM25, deployment.sparse.query("topic5"), limit=3)
        first, second, third, fourth = store.search([everything, one, everything, words])
        assert fourth == deployment.vectors.search([words])[0] != []
    assert [hit.episode_id for hit in first] == [hit.episode_id for hit in third] == corpus.exact(3)[0]
    assert [hit.episode_id for hit in second] == [corpus.name(7)]


def test_a_data_set_that_is_not_there_is_named_and_judged_as_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WW_BENCH_DATA", str(tmp_path))
    found = list(measure(["locomo"], Settings(data_dir=tmp_path / "d"), Scale()))
    assert {figure.met for figure in found} == {None}
    by_default = [figure for figure in found if figure.name.startswith("locomo_recall")]
    assert [(figure.target, "WW_BENCH_DATA" in figure.note) for figure in by_default] == [
        (0.73, True),
        (0.82, True),
        (50, True),
    ]
    assert set(PROMISED["locomo"]) < {figure.name for figure in found}


def test_conversations_that_nothing_was_tuned_on_lose_as_much_as_where_they_lose_most() -> None:
    seen, unseen = {"": ({5: 0.74, 10: 0.83}, 20.0)}, {"": ({5: 0.72, 10: 0.79}, 25.0)}
    found = conversations._lost("", "", seen, unseen)
    assert (found.value, found.met) == (pytest.approx(0.04), False)
    assert found.note == "@5 0.720 beside 0.740, @10 0.790 beside 0.830"


def test_an_outage_that_did_not_come_about_proves_nothing() -> None:
    verification = Verification(True, (Check("points", True, 5, 5),))
    report = Report(
        seed=1,
        faults={"neo4j_stopped": 2, "neo4j_frozen": 1, "poisoned": 1},
        attempted=9,
        acknowledged=8,
        lost=1,
        doubled=0,
        returned=0,
        dead=0,
        poisoned=0,
        erased=0,
        embedded=7,
        recovery_seconds=2.5,
        quiet=True,
        verification=verification,
    )
    happened, absent = faults.outage("neo4j", report), faults.outage("qdrant", report)
    assert (happened.name, happened.value, happened.met) == ("faults_neo4j_outage", 1, False)
    assert "3 outages of Neo4j among 4 faults" in happened.note
    assert (absent.met, absent.unjudged) == (None, "no outage came about in time")


def test_a_server_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEO4J_HOME", raising=False)
    monkeypatch.delenv("QDRANT_BINARY", raising=False)
    neo4j, qdrant = faults._on_servers(Bench(tmp_path, SCALES["quick"], Settings(data_dir=tmp_path)), "")
    assert neo4j.note == "not measured: NEO4J_HOME does not name the home of a Neo4j server"
    assert (qdrant.target, qdrant.state, "QDRANT_BINARY" in qdrant.note) == (0, "not judged", True)


def test_the_command_prints_figures_and_says_no_where_a_target_is_missed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object, **__: object) -> list[Figure]:
        return [
            *(Figure("fast", 10, "1/s", 9, 5, "a peer"), Figure("slow", 8, "1/s", 9)),
            *(
                Figure("small", 8, "1/s", 9, note="few", unjudged="judged at many"),
                skipped("gone", "ms", "no server", 2),
            ),
        ]

    monkeypatch.setattr("ww.bench.measure", measured)
    assert run(["bench", "all", "--json", "--data-dir", str(tmp_path)]) == 1
    (fast, slow, small, gone) = json.loads(capsys.readouterr().out)["benchmarks"]
    assert set(fast) == set(FIELDS)
    assert (fast["met"], fast["ratio"], slow["met"], slow["peer"]) == (True, 2.0, False, None)
    assert [figure["state"] for figure in (fast, slow, small, gone)] == ["met", "missed", "not judged", "not judged"]
    assert (small["target"], small["met"], small["note"]) == (9, None, "few; judged at many")
    assert (gone["target"], gone["value"], gone["note"]) == (2, None, "not measured: no server")
    assert run(["bench", "--data-dir", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert "MISSED" in shown
    assert "not judged" in shown
    assert run(["bench", "--scale", "huge", "--data-dir", str(tmp_path)]) == 2
