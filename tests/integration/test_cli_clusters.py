"""The command line shows runs, clusters and their map, and takes a run back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import TOPICS, Cli, lines_of


def test_consolidation_is_shown_as_runs_and_clusters(cli: Cli, tmp_path: Path) -> None:
    cli("ingest", str(lines_of(tmp_path / "notes.jsonl", repeat=8)), "--session", "s")
    (made,) = cli("consolidate", "--session", "s")["runs"]
    assert (made["status"], made["considered"]) == ("done", 72)
    assert set(made) >= {"run_id", "session_id", "sampled", "assigned", "noise", "folded", "clusters", "seconds"}
    clusters = cli("clusters", "--members")["clusters"]
    assert sum(len(one["members"]) for one in clusters) == made["assigned"] == sum(one["size"] for one in clusters)
    assert all(set(one) == {"cluster_id", "label", "size", "keyphrases", "medoid", "members"} for one in clusters)
    assert [one["run_id"] for one in cli("runs")["runs"]] == [made["run_id"]]
    assert cli("sessions")["sessions"][0]["clusters"] == len(clusters)
    figures = cli("metrics")
    assert (figures["clusters"], figures["clusters_merged"], figures["clusters_split"]) == (len(clusters), 0, 0)
    assert figures["unclustered_share"] == pytest.approx(made["noise"] / 72)
    assert figures["consolidation_sampled"] == made["sampled"]
    assert figures["consolidation_seconds"] == pytest.approx(made["seconds"])
    assert f"clusters {len(clusters)} " in " ".join(cli.text("metrics").split())
    one = max(clusters, key=lambda cluster: cluster["size"])
    known = cli("clusters", "--about", one["cluster_id"])["results"]
    assert known
    assert {found["episode_id"] for found in known} <= set(one["members"])
    assert cli("clusters", "--about", "nothing")["error"]["type"] == "NotFound"
    inside = cli("recall", "the wind", "--cluster", one["cluster_id"], "--limit", "100")["results"]
    assert {found["episode_id"] for found in inside} == set(one["members"])
    assert "clusters" in cli.text("consolidate")


def test_a_run_is_previewed_and_taken_back_exactly(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "notes.jsonl"
    cli("ingest", str(lines_of(source, repeat=8)), "--session", "s")
    (first,) = cli("consolidate", "--session", "s")["runs"]
    cli("ingest", str(lines_of(source, repeat=12)), "--session", "s")
    questions = ("what is for dinner", "a boat in bad weather", "which piece to give up")

    def seen() -> Any:
        # all of them: time goes on between two looks, and with it what is recent and who has neighbours
        answers = [cli("recall", question, "--flat", "--limit", "100")["results"] for question in questions]
        found = [{one["episode_id"]: (one["content"], one["cluster"]) for one in answer} for answer in answers]
        return cli("clusters", "--members"), found

    before = seen()
    (shown,) = cli("consolidate", "--session", "s", "--dry-run")["runs"]
    assert (shown["status"], shown["considered"], shown["run_id"]) == ("dry_run", 36, "")
    assert "difference" in cli.text("consolidate", "--session", "s", "--dry-run")
    assert seen() == before
    (second,) = cli("consolidate", "--session", "s")["runs"]
    assert second["considered"] == 36
    assert seen() != before
    assert cli("rollback", first["run_id"])["error"]["hint"] == f"the visible run is {second['run_id']}"
    assert cli.code == 1
    answer = cli("rollback", second["run_id"])
    assert (answer, cli.code) == ({"run_id": second["run_id"], "session_id": "s", "status": "rolled_back"}, 0)
    assert seen() == before
    assert (cli("rollback", "nobody")["error"]["type"], cli.code) == ("NotFound", 1)
    assert (cli("runs", "--cancel", first["run_id"])["error"]["type"], cli.code) == ("Busy", 1)
    tree = cli.text("clusters")
    assert "└─" in tree
    assert "“" in tree


def test_a_map_is_one_page_that_no_text_can_break_out_of(cli: Cli, tmp_path: Path) -> None:
    cli("ingest", str(lines_of(tmp_path / "notes.jsonl", repeat=8)), "--session", "<b>s</b>")
    cli("store", "</script><script>alert('simmer the soup')</script> <!-- &amp;", "--session", "<b>s</b>")
    cli("consolidate")
    page = tmp_path / "map.html"
    answer = cli("clusters", "--map", str(page))
    assert (answer["map"], cli.code) == (str(page), 0)
    text = page.read_text()
    assert text.count("<script") == text.count("</script") == 2
    assert "http" not in text.replace("http-equiv", "")
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert len(data["x"]) == len(data["y"]) == len(data["text"]) == len(data["cluster"]) == data["episodes"] == 73
    assert [one["label"] for one in data["clusters"]] == [
        one["label"] for one in sorted(answer["clusters"], key=lambda one: (-one["size"], one["cluster_id"]))
    ]
    cli("store", "elsewhere", "--session", "t")
    assert cli("clusters", "--map", str(page))["error"]["type"] == "InvalidInput"
    assert cli("clusters", "--map", str(page), "--session", "nobody")["error"]["type"] == "NotFound"
    assert cli("clusters", "--map", str(tmp_path / "no" / "where.html"), "--session", "t")["error"]
    assert cli.code == 2


def test_a_second_run_with_nothing_new_keeps_every_cluster(cli: Cli) -> None:
    for topic, texts in TOPICS.items():
        for text in texts:
            for number in range(4):
                cli("store", f"{text}, {topic} note {number}", "--no-wait")
    (first,) = cli("consolidate")["runs"]
    assert first["clusters"]
    for dry in ((), ("--dry-run",)):
        (again,) = cli("consolidate", *dry)["runs"]
        assert again["considered"] == 0
        assert {one["cluster_id"]: one["change"] for one in again["clusters"]} == {
            one["cluster_id"]: "kept" for one in first["clusters"]
        }
