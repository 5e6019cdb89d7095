"""A plan grows with what is asked for, refuses nonsense, and names where its constants come from."""

from __future__ import annotations

import json
import re

import pytest

from ww.cli.run import run
from ww_core.capacity import BUSY, CHARACTERS, Demand, constants, plan, tier, windows_of
from ww_core.errors import InvalidInput
from ww_core.presets import PRESETS


def test_a_plan_grows_with_what_is_asked_for() -> None:
    small, large = plan(Demand(10_000, rate=100)), plan(Demand(1_000_000_000, rate=5_000))
    assert large.graph_disk > small.graph_disk
    assert large.vectors_memory > 1_000 * small.vectors_memory
    assert (small.shards, small.preset, large.preset) == (1, "small", "very-large")
    assert large.shards > 1
    assert large.cpu_cores > small.cpu_cores >= 1
    assert plan(Demand(10_000, windows=3)).vectors_disk > small.vectors_disk
    short, long = (plan(Demand(10_000, characters=characters)) for characters in (16, 500))
    assert long.graph_disk > small.graph_disk
    assert long.neo4j_disk - short.neo4j_disk > 10_000 * 484, "every character is in the database, and in its log"
    assert plan(Demand(10_000)).cpu_cores == 0
    assert plan(Demand(10_000, rate=1000, characters=600)).cpu_cores > 3 * plan(Demand(10_000, rate=1000)).cpu_cores


def test_the_embedding_cores_are_what_was_measured_for_each_kind_of_text() -> None:
    """Texts a second of one core by their mean length, as docs/benchmarks/2026-11-28.md has them."""
    for characters, texts in ((40, 372.3), (53, 303.8), (143, 133.2), (156, 125.6)):
        cores = plan(Demand(1, rate=1e6, characters=characters)).cpu_cores * BUSY
        assert 1e6 / cores == pytest.approx(texts, rel=0.04)


def test_long_texts_have_the_windows_that_the_model_cuts_them_into() -> None:
    """As counted over stretches of Python's documentation."""
    assert [windows_of(characters) for characters in (16, 500, 900)] == [1, 1, 1]
    for characters, windows in ((2_000, 6.85), (5_000, 13.7), (10_000, 25.85), (50_000, 121.3)):
        assert windows_of(characters) == pytest.approx(windows, rel=0.25)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--episodes", "0.5"), "--episodes 0.5 is out of range (use 1 to"),
        (("--episodes", "inf"), "--episodes inf is out of range (use 1 to"),
        (("--episodes", "10", "--shard-memory", "-1"), "--shard-memory -1 is out of range (use 0.001 to 1e+06 GiB)"),
        (("--episodes", "10", "--windows", "0"), "--windows 0 is out of range"),
    ],
)
def test_what_cannot_be_planned_is_refused_as_it_was_given(
    given: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", *given]) == 2
    assert told in capsys.readouterr().err


def test_copies_gpus_and_results_are_planned_for() -> None:
    one, three = plan(Demand(1_000_000)), plan(Demand(1_000_000, replicas=3))
    assert (three.qdrant_memory, three.qdrant_disk) == (3 * one.qdrant_memory, 3 * one.qdrant_disk)
    assert (three.shards, three.nodes) == (one.shards, 3 * one.nodes)
    by_gpu = plan(Demand(10_000, rate=1000, encode_rate=5000))
    assert (by_gpu.cpu_cores, by_gpu.gpus) == (0, 1)
    assert plan(Demand(10_000, rate=1000, windows=8, encode_rate=5000)).gpus == 3
    idle, busy = plan(Demand(10_000)), plan(Demand(10_000, results=100, results_kept=60))
    assert busy.redis_memory - idle.redis_memory == 100 * 60 * constants()["redis"]["per_result"]
    assert plan(Demand(1_000_000)).redis_memory == idle.redis_memory, "the broker keeps no episodes"
    assert plan(Demand(10_000_000)).first_run_seconds > 5 * one.first_run_seconds
    assert plan(Demand(1000, rate=100)).hourly_run_seconds > idle.hourly_run_seconds


def test_an_hour_costs_a_sample_however_few_are_new() -> None:
    """Seconds that docs/benchmarks/2026-11-27.md has for 5 000 new among a million; CPU of 20 000 among 100 000."""
    for new, seconds in ((5_000, 6.6), (20_000, 9.1)):
        assert plan(Demand(1_000_000, rate=new / 3600)).hourly_run_seconds == pytest.approx(seconds, rel=0.15)
    assert plan(Demand(1_000_000)).first_run_seconds == pytest.approx(114, rel=0.05)


def test_an_episode_is_by_default_as_long_as_a_turn_or_a_paragraph() -> None:
    assert Demand(1).characters == CHARACTERS
    assert 143 <= CHARACTERS <= 156


def test_the_memory_of_workers_and_of_neo4j_is_planned_for() -> None:
    none, many = plan(Demand(10_000)), plan(Demand(10_000, rate=1000))
    each = constants()["workers"]["per_embedder"]
    assert many.workers_memory - none.workers_memory == (many.cpu_cores - 1) * each, "one that embeds is always there"
    assert plan(Demand(10_000, rate=1000, encode_rate=500)).workers_memory == none.workers_memory + 2 * each
    least = constants()["neo4j"]["page_cache_least"]
    assert none.neo4j_memory == constants()["neo4j"]["memory_fixed"] + least
    large = plan(Demand(10_000_000))
    assert least < large.neo4j_memory < large.neo4j_disk, "the database is in the page cache, the logs are not"


def test_the_memory_of_vectors_says_what_may_be_taken_back() -> None:
    """MiB of a process that answered 1 000 times: all, and pages of files. Over few episodes the plan is 30% off."""
    measured = ((10_000, 304, 244, 0.3), (100_000, 600, 427, 0.1), (1_000_000, 4_243, 2_916, 0.1))
    for episodes, resident, mapped, off in measured:
        planned = plan(Demand(episodes))
        assert planned.vectors_memory / 2**20 == pytest.approx(resident, rel=off)
        assert planned.vectors_mapped / 2**20 == pytest.approx(mapped, rel=off)


def test_every_tier_is_a_preset() -> None:
    assert [tier(n) for n in (10_000, 100_000, 1_000_000, 1_000_001)] == list(PRESETS)


def test_every_constant_says_when_where_and_how_it_was_measured() -> None:
    for name, section in constants().items():
        assert {"date", "machine", "command"} < set(section), name


@pytest.mark.parametrize(
    "demand", [Demand(-3), Demand(0), Demand(10, rate=-1), Demand(10, replicas=0), Demand(10, rate=float("nan"))]
)
def test_nonsense_is_refused(demand: Demand) -> None:
    with pytest.raises(InvalidInput, match="out of range"):
        plan(demand)


def test_a_rate_that_fills_the_plan_within_the_hour_is_said_to_need_forgetting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["plan", "--episodes", "10", "--rate", "100"]) == 0
    shown = capsys.readouterr()
    assert re.search(r"^time until they are there +0.1 s ", shown.out, re.MULTILINE)
    assert shown.err == (
        "at 100 a second 10 episodes are there after 0.1 s: planned as if older ones were forgotten as fast "
        "(a day's are --episodes 8.64e+06)\n"
    )
    assert run(["plan", "--episodes", "1e9", "--rate", "1000"]) == 0
    assert re.search(r"^time until they are there +11.6 days ", capsys.readouterr().out, re.MULTILINE)
    for given, seconds in ((["--rate", "100"], 36_000), ([], None)):
        assert run(["plan", "--episodes", "3.6e6", *given, "--json"]) == 0
        shown = capsys.readouterr()
        assert (json.loads(shown.out)["plan"]["filled_seconds"], shown.err) == (seconds, "")


def test_the_command_answers_people_and_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--episodes", "1e9", "--rate", "5000", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["demand"]["episodes"] == 1_000_000_000
    assert found["demand"]["characters"] == CHARACTERS
    assert found["plan"]["cpu_cores"] > 0
    for replicas, nodes in (("1", "1 node where"), ("3", "3 nodes where")):
        assert run(["plan", "--episodes", "1e5", "--replicas", replicas]) == 0
        shown = capsys.readouterr().out
        assert "MiB" in shown
        assert nodes in shown
    for episodes in ("-3", "nan", "many"):
        assert run(["plan", "--episodes", episodes, "--json"]) == 2
        assert json.loads(capsys.readouterr().out)["error"]["message"]
