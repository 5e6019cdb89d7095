"""How the command line talks: options, errors, exit codes, JSON, and text that cannot steer a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ww.cli.background import POOLS
from ww.cli.output import harmless, one_line, plain
from ww.cli.run import run
from ww_core.config import Settings
from ww_core.config.template import template
from ww_core.deployment import Deployment
from ww_core.models import Episode, Medoid, State
from ww_core.stores.ports import Queue
from ww_core.version import VERSION


@pytest.fixture(autouse=True)
def elsewhere(clean: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and configuration, and a data directory in it."""
    monkeypatch.setenv("T4DM_DATA_DIR", str(clean / "data"))
    return clean


class Answer:
    """What one command line left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        (line,) = self.out.splitlines()
        return json.loads(line)


@pytest.fixture
def ww(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*argv: str) -> Answer:
        code = run(argv)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


def stored(tmp_path: Path, *episodes: Episode) -> None:
    deployment = Deployment(Settings(data_dir=tmp_path / "data"))
    deployment.ingest.store_batch(episodes)
    deployment.close()


def test_the_version_is_said(ww: Any) -> None:
    assert ww("--version").out == f"ww {VERSION}\n"
    assert ww("--version", "--json").json == {"version": VERSION}


def test_without_a_command_help_is_shown_as_a_usage_error(ww: Any) -> None:
    answer = ww()
    assert answer.code == 2
    assert "recall" in answer.out
    assert ww("--json").json["error"]["type"] == "BadParameter" or ww("--json").code == 2


@pytest.mark.parametrize(
    "argv",
    [
        ("nope",),
        ("recall",),
        ("recall", "q", "--limit", "many"),
        ("recall", "q", "--limit", "0"),
        ("recall", "q", "--flat", "--hierarchical"),
        ("recall", "q", "--around", "101"),
        ("recall", "q", "--around", "3", "--text"),
        ("get", "x", "--around", "-1"),
        ("recall", "q", "--since", "2024-05-01T10:00:00"),
        ("recall", "q", "--context", "nothing"),
        ("list", "--limit", "1000000000000000000000"),
        ("forget",),
        ("update", "x"),
        ("ingest", "gone.jsonl"),
        ("worker", "--pool", "tpu"),
        ("config", "--config", "gone.yaml"),
        ("status", "--bogus"),
        ("recall", "q", "--limit", "1e9"),
        ("recall", ""),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(ww: Any, argv: tuple[str, ...]) -> None:
    answer = ww(*argv)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("ww: ")
    assert len(answer.err.splitlines()) == 1
    error = ww(*argv, "--json").json["error"]
    assert set(error) == {"type", "message", "hint"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("recall", "q", "--limit", "1e9"), "--limit must be a whole number, not '1e9'"),
        (("store", "x", "--importance", "much"), "--importance must be a number, not 'much'"),
        (("recall",), "Missing argument 'QUERY'."),
        (("recall", " "), "query is empty: ' '"),
        (("recall", "q", "--data-dir", ""), "Invalid value for '--data-dir': must name a directory"),
        (("--data-dir", " ", "list"), "Invalid value for '--data-dir': must name a directory"),
        (("recall", "q", "--session", ""), "session_id has 0 characters: ''"),
        (("ingest", __file__, "--session", ""), "session_id has 0 characters: ''"),
    ],
)
def test_a_wrong_command_line_is_told_with_its_option_and_value(ww: Any, argv: tuple[str, ...], said: str) -> None:
    assert ww(*argv, "--json").json["error"]["message"] == said


def test_a_setting_nobody_knows_is_exit_code_2(ww: Any, elsewhere: Path) -> None:
    (elsewhere / "t4dm.yaml").write_text("neo4j_poolsize: 1\n")
    answer = ww("status")
    assert answer.code == 2
    assert "t4dm.yaml:1" in answer.err
    assert "neo4j_pool_size" in answer.err


def test_an_unknown_id_is_exit_code_1(ww: Any) -> None:
    answer = ww("get", "nobody", "--json")
    assert answer.code == 1
    assert answer.json["error"]["type"] == "NotFound"
    assert "`ww list`" in answer.json["error"]["hint"]


def test_a_data_directory_that_is_a_file_is_exit_code_3(ww: Any, elsewhere: Path) -> None:
    (elsewhere / "data").write_text("not a directory")
    answer = ww("status")
    assert answer.code == 3
    assert "data" in answer.err


def test_a_worker_without_a_broker_is_a_setting_that_is_missing(ww: Any) -> None:
    assert ww("worker", "--pool", "cpu", "--json").json["error"]["type"] == "ConfigurationError"
    assert ww("beat").code == 2


def test_options_stand_before_or_after_the_command(ww: Any, elsewhere: Path) -> None:
    before = ww("--json", "--data-dir", "a", "config")
    after = ww("config", "--json", "--data-dir", "a")
    assert before.json == after.json
    assert before.json["settings"]["data_dir"] == {"value": str(elsewhere / "a"), "source": "command line"}
    assert (
        ww("--data-dir", "a", "config", "--data-dir", "b", "--json").json["settings"]["data_dir"]["value"].endswith("b")
    )


def test_a_query_may_look_like_an_option(ww: Any) -> None:
    assert ww("get", "--", "--json").err.startswith("ww: no episode '--json'")


def test_tracebacks_are_for_those_who_ask(ww: Any) -> None:
    assert "Traceback" not in ww("get", "nobody").err
    assert "Traceback" in ww("get", "nobody", "-v").err


def test_config_tells_values_and_sources_but_no_secret(ww: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_NEO4J_PASSWORD", "hunter2")
    monkeypatch.setenv("T4DM_REDIS_URL", "redis://:hunter2@cache/0")
    answer = ww("config", "--json")
    assert answer.json["settings"]["redis_url"] == {"value": "redis://:***@cache/0", "source": "T4DM_REDIS_URL"}
    assert set(answer.json["settings"]) == set(Settings.model_fields)
    assert "hunter2" not in answer.out + ww("config").out + ww("config", "-v").err


def test_config_writes_a_file_once(ww: Any, elsewhere: Path) -> None:
    assert ww("config", "--init").code == 0
    assert (elsewhere / "t4dm.yaml").read_text() == template()
    assert yaml.safe_load(template()) is None
    (elsewhere / "t4dm.yaml").write_text("namespace: mine\n")
    assert ww("config", "--init").code == 2
    assert (elsewhere / "t4dm.yaml").read_text() == "namespace: mine\n"
    assert ww("config", "--init", "--force").code == 0
    assert ww("config", "--init", "--config", "other.yaml", "--json").json == {"written": "other.yaml"}


def test_a_buffer_outside_its_range_is_one_line_on_stderr(ww: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("T4DM_WORKING_MEMORY_SIZE", "9")
    answer = ww("config", "--json")
    assert answer.code == 0
    assert answer.err.startswith("warning: working_memory_size = 9")
    assert len(answer.err.splitlines()) == 1


def test_status_of_an_empty_memory(ww: Any) -> None:
    answer = ww("status", "--json").json
    assert answer["episodes"] == dict.fromkeys(("acknowledged", "pending", "leased", "embedded", "dead", "erased"), 0)
    assert answer["oldest_pending_seconds"] is None
    assert (answer["queues"], answer["workers"]) == ({}, [])
    assert set(answer["stores"]) == {"graph", "vectors"}


NASTY = "first\x1b]0;owned\x07\nsecond\u202e line\x9b31m\ttab \U0001f600"


def test_content_is_exact_in_json_and_harmless_for_people(ww: Any, elsewhere: Path) -> None:
    when = datetime(2024, 5, 1, 10, tzinfo=UTC)
    stored(elsewhere, Episode(content=NASTY, episode_id="e1", session_id="s", timestamp=when, context={"k": "\x1b[2J"}))
    assert ww("get", "e1", "--json").json["episode"]["content"] == NASTY
    listed = ww("list", "--json").json["episodes"]
    assert [(one["episode_id"], one["content"], one["state"]) for one in listed] == [("e1", NASTY, "pending")]
    assert listed[0]["timestamp"] == "2024-05-01T10:00:00+00:00"
    for argv in (("get", "e1"), ("list",)):
        text = ww(*argv).out
        assert not set(text) & set("\x1b\x07\u202e\x9b")
        assert "\\x1b" in text
    assert ww("sessions", "--json").json["sessions"][0]["episodes"] == 1


def test_listing_follows_session_time_and_limit(ww: Any, elsewhere: Path) -> None:
    stored(
        elsewhere,
        *(
            Episode(
                content=f"e{n}",
                episode_id=f"e{n}",
                session_id="ab"[n % 2],
                timestamp=datetime(2024, 5, n + 1, tzinfo=UTC),
            )
            for n in range(6)
        ),
    )

    def listed(*argv: str) -> list[str]:
        return [one["episode_id"] for one in ww("list", "--json", *argv).json["episodes"]]

    assert listed() == [f"e{n}" for n in range(6)]
    assert listed("--session", "b") == ["e1", "e3", "e5"]
    assert listed("--since", "2024-05-02T00:00:00+00:00", "--until", "2024-05-04T00:00:00Z") == ["e1", "e2"]
    assert listed("--limit", "2") == ["e0", "e1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext äöü 漢字", "plain\n\ttext äöü 漢字"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("bell\x07 back\x08 del\x7f", "bell\\x07 back\\x08 del\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202eb\ud800", "a\\u202eb\\ud800"),
        ("a\rb", "a\\x0db"),
    ],
)
def test_what_could_steer_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_preview_is_one_short_line() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("x" * 1000, 10) == "x" * 9 + "…"
    assert "\n" not in one_line("a\n" * 5000)


def test_domain_objects_become_json() -> None:
    value = {
        "m": Medoid("e", "c"),
        "t": datetime(2024, 5, 1, tzinfo=UTC),
        "n": float("nan"),
        "s": State.DEAD,
        "l": (1, 2),
    }
    assert plain(value) == {
        "m": {"episode_id": "e", "content": "c"},
        "t": "2024-05-01T00:00:00+00:00",
        "n": None,
        "s": "dead",
        "l": [1, 2],
    }


def test_every_queue_is_consumed_by_a_pool() -> None:
    assert {queue for name, queues in POOLS.items() if name not in ("all", "gpu") for queue in queues} == set(Queue)
    assert set(POOLS["all"]) == set(Queue)


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_becomes_celery_with_its_queues(
    ww: Any, pool: str, monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    became: list[Any] = []
    monkeypatch.setattr("os.execve", lambda *arguments: became.append(arguments))
    monkeypatch.setenv("T4DM_REDIS_URL", "redis://:hunter2@cache/0")
    assert ww("worker", "--pool", pool, "--data-dir", "there", "--without-gossip").code == 0
    ((program, command, environment),) = became
    assert program == sys.executable
    assert command[1:6] == ["-m", "celery", "-A", "ww_workers", "worker"]
    assert command[command.index("-Q") + 1].split(",") == [queue.value for queue in POOLS[pool]]
    assert command[command.index("-P") + 1] == "prefork"
    assert ("worker.pool_start_method=spawn" in command) is (pool == "gpu")
    assert command[-1] == "--without-gossip"
    assert "hunter2" not in " ".join(command)
    assert environment["REMAP_SIGTERM"] == "SIGQUIT"
    assert environment["T4DM_DATA_DIR"] == str(elsewhere / "there")


def ww_process(*argv: str, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "ww.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        **more,
    )


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = ww_process("config")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 0
    assert errors == b""


def test_reading_commands_load_no_model() -> None:
    script = (
        "import sys; from ww.cli.run import run; code = run(sys.argv[1:]);"
        "heavy = {'torch', 'celery', 'sklearn', 'neo4j', 'qdrant_client', 'sentence_transformers'} & set(sys.modules);"
        "sys.exit(f'{code} {sorted(heavy)}' if code or heavy else 0)"
    )
    for command in ("status", "list"):
        done = subprocess.run(
            [sys.executable, "-c", script, command, "--json"],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_background_work_that_hangs_changes_no_exit_code() -> None:
    """What is inside a native engine while the interpreter goes away would abort the process."""
    script = (
        "import atexit, sys, threading, time\n"
        "atexit.register(print, 'the interpreter goes on')\n"
        "import ww.cli, ww.cli.run\n"
        "def run(argv):\n"
        "    if argv: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    atexit.register(print, 'closed')\n"
        "    return 3\n"
        "ww.cli.run.run = run\n"
        "ww.cli.main()\n"
    )
    for argv, said in ((["hang"], "closed\n"), ([], "closed\nthe interpreter goes on\n")):
        done = subprocess.run(
            [sys.executable, "-c", script, *argv], capture_output=True, timeout=30, check=False, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, said, "")
