"""The command line on real stores: text in, answers out, corrections and repairs, and the demo."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path

import pytest

from tests.contract import graphs
from tests.integration.command_line import TOPICS, Cli, lines_of
from ww.cli.demo import MARKER
from ww.cli.demo_text import FEWEST_EPISODES, MOST_EPISODES, episodes
from ww_core.errors import StoreUnavailable
from ww_core.observability import Metrics, process_metrics
from ww_core.observability.publish import FileBoard
from ww_core.stores.embedded.graph import SqliteGraphStore


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


def test_lines_whose_episodes_were_updated_since_are_kept_as_updated(cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "notes.jsonl"
    source.write_text(
        '{"content": "the tide is low", "episode_id": "own"}\n{"content": "same"}\n{"content": "castle early"}\n'
    )
    cli("ingest", str(source), "--no-wait")
    made = next(one["episode_id"] for one in cli("list")["episodes"] if one["content"] == "castle early")
    cli("update", "own", "--content", "the tide is high")
    cli("update", made, "--content", "castle late")
    for _ in range(2):
        again = cli("ingest", str(source), "--no-wait")
        again.pop("seconds")
        assert (again, cli.code) == ({"accepted": 0, "duplicates": 1, "changed": 2, "rejected": 0}, 0)
        assert cli.err == f"{source}:1 and 1 more: changed by `ww update` since, and kept as changed\n"
    assert "0 stored, 1 already there, 2 changed since and kept, 0 refused" in cli.text("ingest", str(source))
    assert cli("get", "own")["episode"]["content"] == "the tide is high"

    source.write_text('{"content": "the tide is gone", "episode_id": "own"}\n')
    answer = cli("ingest", str(source), "--no-wait")
    assert (answer["changed"], answer["rejected"], cli.code) == (0, 1, 1)
    assert f"{source}:1: episode 'own' exists with other content" in cli.err
    assert "or change the episode with update" in cli.err
    assert cli("store", "the tide is low", "--id", "own")["error"]["type"] == "EpisodeConflict"


def test_a_packed_file_that_was_cut_is_taken_up_to_there_and_then_as_a_whole(cli: Cli, tmp_path: Path) -> None:
    plain, packed, rejects = tmp_path / "notes.jsonl", tmp_path / "notes.jsonl.gz", tmp_path / "rejects"
    plain.write_text("".join(json.dumps({"content": f"{n} {n**40:x}"}) + "\n" for n in range(300)))
    whole = gzip.compress(plain.read_bytes())
    packed.write_bytes(whole[: len(whole) * 2 // 3])
    first = cli("ingest", str(packed), "--no-wait", "--rejects", str(rejects))
    assert (first["rejected"], cli.code, rejects.read_bytes()) == (1, 1, b"")
    assert cli.err == (
        f"{packed}:{first['accepted'] + 1}: the gzip file is cut off in this line (what ended before it is taken; "
        "give the whole file again, and nothing is stored twice)\n"
    )
    assert 100 < first["accepted"] < 300
    packed.write_bytes(whole)
    again = cli("ingest", str(packed), "--no-wait")
    assert (again["accepted"], again["duplicates"], cli.code) == (300 - first["accepted"], first["accepted"], 0)
    assert cli("ingest", str(plain), "--no-wait")["duplicates"] == 300


def test_what_workers_have_not_embedded_is_told_where_nothing_is_found(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("T4DM_REDIS_URL", "redis://127.0.0.1:1/0")  # nobody there
    assert cli("recall", "what colour were the lamps")["results"] == []
    assert "not embedded yet" not in cli.err
    assert cli("store", "the harbour lights were green", "--no-wait")["state"] == "pending"
    assert cli("recall", "what colour were the lamps")["results"] == []
    assert "1 episode is not embedded yet and cannot be found; `ww status` says whether workers are there" in cli.err


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


def test_each_result_comes_with_what_was_said_around_it(cli: Cli) -> None:
    for text in ("who has the spare key", "it hangs behind the third flower pot", "thanks, I found it"):
        cli("store", text, "--session", "s", "--no-wait")
    cli("flush")
    question = ("recall", "where does the key hang", "--limit", "1")
    (alone,) = cli(*question)["results"]
    assert "around" not in alone
    (hit,) = cli(*question, "--around", "1")["results"]
    said = ["who has the spare key", "it hangs behind the third flower pot", "thanks, I found it"]
    at = said.index(hit["content"])
    assert [one["content"] for one in hit["around"]] == said[max(0, at - 1) : at + 2]
    assert all(text in cli.text(*question, "--around", "2") for text in said)


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


def test_a_recall_without_the_model_says_so(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cli("store", "the kettle is descaled")
    monkeypatch.setenv("T4DM_EMBEDDING_MODEL", str(tmp_path / "no-model"))
    assert "the kettle is descaled" in cli.text("recall", "who descaled the kettle")
    assert cli.code == 0
    assert "words alone" in cli.err
    monkeypatch.setenv("T4DM_RECALL_WEIGHT_LATE", "1")
    assert cli("recall", "who descaled the kettle")["results"], "late interaction needs the model, and is left out"


def test_vectors_that_a_backup_lacks_are_missed_and_made_again(cli: Cli, tmp_path: Path) -> None:
    for text in TOPICS["sailing"]:
        cli("store", text)
    with sqlite3.connect(tmp_path / "memory" / "graph.sqlite3") as record:
        (tmp_path / "restored").mkdir(mode=0o700)
        record.execute("VACUUM INTO ?", [str(tmp_path / "restored" / "graph.sqlite3")])
    record.close()
    cli.data_dir = tmp_path / "restored"
    assert cli("recall", "where to drop the anchor")["results"] == []
    assert f"no vectors of {len(TOPICS['sailing'])} embedded episodes" in cli.err
    assert not cli("verify")["ok"]
    assert cli.code == 1
    assert cli("verify", "--repair")["ok"]
    assert cli("recall", "where to drop the anchor")["results"][0]["content"] == TOPICS["sailing"][1]


def test_the_backlog_is_among_the_figures(cli: Cli) -> None:
    cli.data_dir.mkdir(mode=0o700, exist_ok=True)
    graph = SqliteGraphStore(cli.data_dir / "graph.sqlite3")  # nobody is there who would embed them
    graph.add(graphs.episodes(2))
    graph.close()
    process_metrics().reset()
    found = cli("metrics")
    assert found["pending_episodes"] == 2
    assert found["oldest_pending_seconds"] >= 0
    assert (found["batch_fill"], found["hierarchical_gap"]) == (None, None), "not measured"
    rows = [line.split() for line in cli.text("metrics").splitlines()]
    assert ["pending_episodes", "2"] in rows
    assert ["batch_fill", "-"] in rows


def test_where_the_time_went_is_shown_by_stage(cli: Cli) -> None:
    cli("store", "the kettle is descaled")
    cli("recall", "who descaled the kettle")
    lines = cli.text("metrics", "--stages").splitlines()
    assert lines[0].split() == ["stage", "count", "mean", "p50", "p95", "p99"]
    shown = {line.split()[0] for line in lines[1:-1]}
    assert {"store.graph", "embed.encode", "embed.upsert", "recall.embed", "recall.search", "recall.rerank"} <= shown
    assert "999999" not in cli.text("metrics")


def test_what_failed_in_another_process_is_shown(cli: Cli) -> None:
    cli("store", "the kettle is descaled")
    process_metrics().reset()
    metrics = Metrics()
    metrics.failed("consolidate", StoreUnavailable("Neo4j is away"))
    metrics.failed("embed", ValueError("the kettle is descaled"))
    FileBoard(cli.data_dir / "metrics").put("another", json.dumps({"name": "another", **metrics.dump()}))
    failures = cli("metrics")["last_failures"]
    assert [(one["action"], one["error"], one["message"]) for one in failures] == [
        ("consolidate", "StoreUnavailable", "Neo4j is away"),
        ("embed", "ValueError", ""),
    ]
    heading, first, second = cli.text("metrics", "--errors").splitlines()
    assert heading.split() == ["at", "action", "error", "message"]
    assert first.split()[2:] == ["consolidate", "StoreUnavailable", "Neo4j", "is", "away"]
    assert second.split()[2:] == ["embed", "ValueError"]
    assert cli("metrics", "--errors") == {"last_failures": failures}
    both = cli("metrics", "--stages", "--errors")
    assert (set(both), both["last_failures"]) == ({"stages", "last_failures"}, failures)
    tables = cli.text("metrics", "--stages", "--errors").split("\n\n")
    assert [lines.split()[0] for lines in tables] == ["stage", "at"]


def test_an_alert_that_is_unknown_shows_how_little_was_measured(cli: Cli) -> None:
    process_metrics().reset()
    cli("store", "the kettle is descaled")
    for _ in range(2):
        cli("recall", "who descaled the kettle")
    (recalls, *_) = cli("alerts")["alerts"]
    assert (recalls["name"], recalls["level"], recalls["samples"]) == ("recall_p95", "unknown", 2)
    heading, first, *_ = cli.text("alerts").splitlines()
    assert dict(zip(heading.split(), first.split(), strict=False))["samples"] == "2"


@pytest.mark.parametrize("other", ["--json", "--stages", "--errors"])
def test_the_page_of_prometheus_is_no_table_and_no_object(cli: Cli, other: str) -> None:
    told = cli.text("metrics", "--prometheus", other)
    said = json.loads(told)["error"]["message"] if other == "--json" else cli.err
    assert (cli.code, f"--prometheus and {other} exclude each other" in said) == (2, True)
    assert "world_weaver_" not in told + cli.err


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
