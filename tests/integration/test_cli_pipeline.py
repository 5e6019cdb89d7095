"""The command line on real stores: text in, answers out, background work in between."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.processes import ROOT, RedisServer, clean_environment, until
from ww.cli.demo import MARKER
from ww.cli.demo_text import FEWEST_EPISODES, MOST_EPISODES, episodes
from ww.cli.run import run

TOPICS = {
    "cooking": [
        "simmer the tomato soup with basil",
        "bake the sourdough bread until golden",
        "season the roast chicken",
    ],
    "sailing": ["trim the mainsail before the gust", "drop the anchor in the quiet bay", "tack against the wind"],
    "chess": ["castle early to protect the king", "trade the bishop for the knight", "promote the pawn to a queen"],
}


class Cli:
    """``ww`` in this process, on one data directory."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data_dir = data_dir
        self.capsys = capsys
        self.code = 0
        self.err = ""

    def __call__(self, *argv: str) -> Any:
        """The JSON object that the command printed."""
        self.code = run([*argv, "--json", "--data-dir", str(self.data_dir)])
        captured = self.capsys.readouterr()
        self.err = captured.err
        (line,) = captured.out.splitlines()
        return json.loads(line)

    def text(self, *argv: str) -> str:
        """What the command printed for people."""
        self.code = run([*argv, "--data-dir", str(self.data_dir)])
        captured = self.capsys.readouterr()
        self.err = captured.err
        return captured.out


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in list(os.environ):
        if name.startswith("T4DM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Cli(tmp_path / "memory", capsys)


def lines_of(path: Path, *, repeat: int = 1) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        for n in range(repeat):
            for topic, texts in TOPICS.items():
                for text in texts:
                    stream.write(json.dumps({"content": f"{text} ({n})", "context": {"topic": topic}}) + "\n")
    return path


def test_ingested_lines_are_embedded_found_and_never_doubled(cli: Cli, tmp_path: Path) -> None:
    source = lines_of(tmp_path / "notes.jsonl")
    first = cli("ingest", str(source), "--session", "s")
    assert (first["accepted"], first["duplicates"], first["rejected"], cli.code) == (9, 0, 0, 0)
    assert cli("status")["episodes"] == {
        "acknowledged": 9,
        "pending": 0,
        "leased": 0,
        "embedded": 9,
        "dead": 0,
        "erased": 0,
    }
    again = cli("ingest", str(source), "--session", "s")
    assert (again["accepted"], again["duplicates"]) == (0, 9)
    with source.open("a") as stream:
        stream.write('{"content": "pour the batter into the pan"}\n{broken\n')
    grown = cli("ingest", str(source), "--session", "s", "--rejects", str(tmp_path / "rejects"))
    assert (grown["accepted"], grown["duplicates"], grown["rejected"], cli.code) == (1, 9, 1, 1)
    assert f"{source}:11: the line is not JSON" in cli.err
    assert (tmp_path / "rejects").read_text() == "{broken\n"
    before = source.read_text()
    assert "would be emptied" in cli("ingest", str(source), "--rejects", str(source))["error"]["message"]
    assert (cli.code, source.read_text()) == (2, before)
    answer = cli("recall", "making food in the kitchen", "--context", "topic=cooking", "--limit", "2")
    assert [one["context"] for one in answer["results"]] == [{"topic": "cooking"}] * 2
    assert set(answer) == {"query", "mode", "took_ms", "results"}
    assert set(answer["results"][0]) == {
        "episode_id",
        "content",
        "score",
        "components",
        "session_id",
        "timestamp",
        "context",
        "outcome",
        "cluster",
        "fold",
    }
    assert cli("verify")["ok"] is True


def test_what_was_left_pending_is_picked_up_by_the_next_command(cli: Cli) -> None:
    receipt = cli("store", "the harbour lights were green", "--no-wait")
    assert receipt["state"] == "pending"
    assert cli("status")["episodes"]["pending"] == 1
    found = cli("recall", "what colour were the lamps at the port")
    assert [one["episode_id"] for one in found["results"]] == [receipt["episode_id"]]
    assert cli("flush")["episodes"]["embedded"] == 1


def test_an_episode_is_corrected_and_erased(cli: Cli) -> None:
    stored = cli("store", "the meeting is on monday", "--id", "m1", "--outcome", "neutral", "--context", "room=4")
    assert stored == {"episode_id": "m1", "state": "embedded", "duplicate": False}
    assert cli("store", "the meeting is on monday", "--id", "m1")["duplicate"] is True
    assert cli("store", "another text", "--id", "m1")["error"]["type"] == "EpisodeConflict"
    assert cli.code == 1
    assert cli("update", "m1", "--content", "the meeting is on friday", "--outcome", "success") == {"episode_id": "m1"}
    episode = cli("get", "m1")["episode"]
    assert (episode["content"], episode["outcome"], episode["context"]) == (
        "the meeting is on friday",
        "success",
        {"room": "4"},
    )
    erased = cli("forget", "m1")["erased"]
    assert (erased["episodes"], erased["vectors"]) == (1, 1)
    assert cli("get", "m1")["error"]["type"] == "NotFound"
    assert cli("recall", "the meeting")["results"] == []
    assert cli.code == 0
    assert cli("store", "the meeting is on monday", "--id", "m1")["error"]["type"] == "EpisodeConflict"


def test_results_are_paged_varied_and_made_ready_for_a_prompt(cli: Cli) -> None:
    for session, text in (
        ("a", "the tide is low"),
        ("a", "the tide is high"),
        ("b", "a tide of letters"),
        ("c", "ebb"),
    ):
        cli("store", text, "--session", session, "--no-wait")
    cli("flush")
    both = cli("recall", "tide", "--session", "a", "--also-session", "b")["results"]
    assert {one["session_id"] for one in both} == {"a", "b"}
    ids = [one["episode_id"] for one in both]
    page = cli("recall", "tide", "--session", "a", "--also-session", "b", "--limit", "1", "--offset", "1")["results"]
    assert [one["episode_id"] for one in page] == ids[1:2]
    varied = cli("recall", "tide", "--session", "a", "--also-session", "b", "--mmr", "0.5")["results"]
    assert {one["episode_id"] for one in varied} == set(ids)
    assert cli("recall", "tide", "--also-session", "b")["error"]["type"] == "InvalidInput"
    block = cli("recall", "tide", "--session", "a", "--text")["text"]
    assert block.splitlines()[1:] == [line for line in block.splitlines() if "the tide is" in line]
    said = cli.text("recall", "tide", "--session", "a", "--text", "--by-relevance", "--max-tokens", "20")
    assert said.startswith("- [")
    first = next(one["episode_id"] for one in both if one["content"] == "the tide is low")
    around = cli("get", first, "--around", "3")["around"]
    assert [one["content"] for one in around] == ["the tide is low", "the tide is high"]
    assert "the tide is high" in cli.text("get", first, "--around", "3")


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


@pytest.mark.parametrize("argv", [("recall", "x"), ("store", "x"), ("flush",), ("consolidate",), ("metrics",)])
def test_commands_on_an_empty_memory_answer(cli: Cli, argv: tuple[str, ...]) -> None:
    assert "error" not in cli(*argv)
    assert cli.code == 0


def test_an_explained_result_shows_harmless_text(cli: Cli) -> None:
    cli("store", "alarm \x1b[31mred\x07 light", "--session", "s")
    text = cli.text("recall", "alarm light", "--explain")
    assert "\\x1b[31mred\\x07" in text
    assert "content" in text
    assert not set(text) & set("\x1b\x07")


def test_a_missing_model_is_one_line_and_loses_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("T4DM_EMBEDDING_MODEL", str(tmp_path / "no-model"))
        refused = cli("store", "kept all the same")
        assert (refused["error"]["type"], cli.code) == ("ModelUnavailable", 3)
        assert "no-model" in refused["error"]["message"]
        assert (refused["state"], refused["duplicate"]) == ("pending", False), "the receipt stands beside the error"
        lines = tmp_path / "lines.jsonl"
        lines.write_text('{"content": "kept as well"}\n')
        assert cli("ingest", str(lines))["accepted"] == 1
        assert cli.code == 3
        assert f"{refused['episode_id']} updated" in cli.text("update", refused["episode_id"], "--content", "changed")
    assert cli("flush")["episodes"]["embedded"] == 2


def test_ctrl_c_says_what_was_kept(cli: Cli, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"content": f"Rack {n}: fan replaced"}) + "\n" for n in range(4000)))
    process = subprocess.Popen(
        [sys.executable, "-m", "ww.cli", "--json", "--data-dir", str(cli.data_dir), "ingest", str(lines)],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    graph = cli.data_dir / "graph.sqlite3"

    def under_way() -> bool:
        counts = cli("status")["episodes"] if graph.exists() else {}
        return counts.get("acknowledged") == 4000 and counts["pending"] < 4000

    until(under_way, what="all are stored, and the first of them claimed")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    answer = json.loads(out)
    assert (process.returncode, answer["error"]["type"], answer["accepted"]) == (130, "Interrupted", 4000), err
    assert "Traceback" not in err


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


def test_a_recall_without_the_model_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cli("store", "the kettle is descaled")
    monkeypatch.setenv("T4DM_EMBEDDING_MODEL", str(tmp_path / "no-model"))
    assert "the kettle is descaled" in cli.text("recall", "who descaled the kettle")
    assert cli.code == 0
    assert "words alone" in cli.err
    monkeypatch.setenv("T4DM_RECALL_WEIGHT_LATE", "1")
    assert cli("recall", "who descaled the kettle")["results"], "late interaction needs the model, and is left out"


def test_vectors_that_a_backup_lacks_are_made_again(cli: Cli, tmp_path: Path) -> None:
    for text in TOPICS["sailing"]:
        cli("store", text)
    with sqlite3.connect(tmp_path / "memory" / "graph.sqlite3") as record:
        (tmp_path / "restored").mkdir(mode=0o700)
        record.execute("VACUUM INTO ?", [str(tmp_path / "restored" / "graph.sqlite3")])
    record.close()
    cli.data_dir = tmp_path / "restored"
    assert not cli("verify")["ok"]
    assert cli.code == 1
    assert cli("verify", "--repair")["ok"]
    assert cli("recall", "where to drop the anchor")["results"][0]["content"] == TOPICS["sailing"][1]


def test_where_the_time_went_is_shown_by_stage(cli: Cli) -> None:
    cli("store", "the kettle is descaled")
    cli("recall", "who descaled the kettle")
    lines = cli.text("metrics", "--stages").splitlines()
    assert lines[0].split() == ["stage", "count", "mean", "p50", "p95", "p99"]
    shown = {line.split()[0] for line in lines[1:-1]}
    assert {"store.graph", "embed.encode", "embed.upsert", "recall.embed", "recall.search", "recall.rerank"} <= shown
    assert "999999" not in cli.text("metrics")


def test_the_demo_empties_only_what_it_made(cli: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "memory"
    mine.mkdir()
    (mine / "precious").write_text("mine")
    assert cli("demo")["error"]["type"] == "ConfigurationError"
    assert (mine / "precious").read_text() == "mine"


def test_the_demo_shows_the_whole_path(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = episodes()
    assert FEWEST_EPISODES <= len(texts) <= MOST_EPISODES
    assert len({one.content for one in texts}) == len(texts)
    monkeypatch.setattr("ww.cli.demo.episodes", lambda: texts[::8])  # the whole of it is `make demo`
    monkeypatch.setenv("T4DM_REDIS_URL", "redis://127.0.0.1:1/0")  # the user's own servers are none of its business
    shown = cli("demo")
    assert set(shown) == {"episodes", "embedded", "clusters", "recall", "seconds"}
    assert shown["episodes"] == shown["embedded"] == len(texts[::8])
    assert len(shown["recall"]) == 5
    assert all(one["results"] and one["took_ms"] > 0 for one in shown["recall"])
    assert (cli.data_dir / MARKER).is_file()
    assert cli.text("demo").splitlines()[-1] == (f'ww --data-dir {cli.data_dir} recall "{shown["recall"][0]["query"]}"')


@pytest.fixture
def started(redis_server: RedisServer, tmp_path: Path) -> Iterator[Any]:
    """Starts ``ww`` as a process of its own on the real Redis; each is ended with the test."""
    with ExitStack() as ends:

        def start(*argv: str) -> tuple[subprocess.Popen[bytes], Path]:
            log = tmp_path / f"{argv[0]}.log"
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ww.cli", "--data-dir", str(tmp_path / "memory"), *argv],
                    cwd=tmp_path,
                    env=clean_environment(
                        T4DM_REDIS_URL=redis_server.url, PYTHONPATH=str(ROOT), PYTHONWARNINGS="ignore"
                    ),
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            ends.callback(_ended, process)
            return process, log

        yield start


def _ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_worker_and_a_beat_serve_the_broker(
    cli: Cli, started: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, worker_log = started(
        "worker", "--pool", "all", "--concurrency", "1", "--without-mingle", "--without-gossip"
    )
    beat, beat_log = started("beat")
    until(lambda: " ready" in worker_log.read_text(), what="the worker is ready")
    monkeypatch.setenv("T4DM_REDIS_URL", redis_server.url)
    assert cli("store", "the lighthouse keeper counts the ships")["state"] == "pending"
    assert cli("flush", "--timeout", "90")["episodes"]["embedded"] == 1
    status = cli("status")
    assert set(status["queues"]) == {"ww.embed", "ww.query", "ww.consolidate", "ww"}
    assert [sorted(one["queues"]) for one in status["workers"]] == [["ww", "ww.consolidate", "ww.embed", "ww.query"]]
    until(lambda: "beat: Starting" in beat_log.read_text(), what="beat ticks")
    assert "REMAP_SIGTERM" not in worker_log.read_text()
    for process in (beat, worker):
        process.terminate()
        process.wait(60)


def test_a_broker_that_is_away_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_REDIS_URL", "redis://:hunter2@127.0.0.1:1/0")
    answer = cli("status")
    assert (answer["error"]["type"], cli.code) == ("BrokerUnavailable", 3)
    assert "hunter2" not in json.dumps(answer)
