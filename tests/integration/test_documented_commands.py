"""What the pages tell people to type works as it stands."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests.documentation import PAGES, Block, blocks, ids, read, write_files
from tests.integration.compose_file import PATH as COMPOSE_FILE
from tests.processes import ROOT, RedisServer, clean_environment, until
from ww.bench import BENCHMARKS
from ww.cli.app import command
from ww.cli.run import run
from ww_core.config import Settings
from ww_workers.inspection import workers

SHELL = frozenset({"cd", "source", "git", "uv", "pip", "celery", "curl", "cp", "export", "make", "docker", "pytest"})
"""What a block that is not run may say beside ``ww``."""


def logical_lines(text: str) -> list[str]:
    """Lines without comments and background signs, continued ones joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line for raw in joined.splitlines() if (line := re.split(r"(?:^|\s+)[#&](?:\s|$)", raw)[0].strip())]


TYPED = [page for page in PAGES if any(not block.needs for block in blocks("bash", "console", page=page))]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("page", TYPED)
def test_the_commands_of_a_page_work_in_their_order(
    page: str, quick_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(quick_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(quick_path))
    monkeypatch.setenv("T4DM_DATA_DIR", str(quick_path / "memory"))
    monkeypatch.setenv("COLUMNS", "160")
    _things_to_ingest(quick_path)
    write_files(page, quick_path)
    for block in blocks("bash", "console", page=page):
        if block.needs:
            continue
        if block.language == "bash":
            for line in logical_lines(block.text):
                code, out, err = _type(line, monkeypatch, capsys)
                assert code == 0, f"{block.place}: {line}\n{out}{err}"
            continue
        for line, expected in _dialogue(block.text):
            _, out, err = _type(line, monkeypatch, capsys)
            seen = [_stripped(out + err), _stripped(err + out)]  # which of the two a terminal shows first is open
            assert any(re.fullmatch(_pattern(expected), one, re.DOTALL) for one in seen), (
                f"{block.place}: {line}\n{seen}"
            )


def _things_to_ingest(directory: Path) -> None:
    (directory / "notes.jsonl").write_text('{"content": "disk usage on api-7 is at 97%"}\n')
    (directory / "chat.csv").write_text("text,who\nplease free some space,ann\n")
    (directory / "docs").mkdir()
    (directory / "docs" / "runbook.md").write_text("# Disks\n\nDelete old images first.\n")


def _type(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run one line as a person would: exit code, what was printed, and what went to stderr."""
    words = shlex.split(line)
    if words[0] == "export":
        for word in words[1:]:
            monkeypatch.setenv(*word.split("=", 1))
        return 0, "", ""
    with monkeypatch.context() as patch:
        while re.match(r"\w+=", words[0]):
            patch.setenv(*words.pop(0).split("=", 1))
        if words[0] == "ww" and ">" not in words:
            capsys.readouterr()
            code = run(words[1:])
            printed = capsys.readouterr()
            return code, printed.out, printed.err
        if shutil.which(words[0]) is None:
            pytest.skip(f"{words[0]} is not installed")
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=100, check=False)
        return done.returncode, done.stdout, done.stderr


def _dialogue(text: str) -> list[tuple[str, str]]:
    """(command, what it prints) of a console block."""
    parts = re.split(r"^\$ (.+)$", text, flags=re.MULTILINE)
    assert not parts[0].strip(), "a console block begins with a command"
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _stripped(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def _pattern(expected: str) -> str:
    return ".*?".join(map(re.escape, _stripped(expected).split("…")))


# -- commands that need more than this machine may have


NEEDING = [block for block in blocks("bash", "console") if block.needs]


@pytest.mark.parametrize("block", NEEDING, ids=ids(NEEDING))
def test_what_is_not_run_here_is_well_formed(block: Block) -> None:
    for line in logical_lines(re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE)):
        words = shlex.split(line)
        while re.match(r"\w+=", words[0]):
            words.pop(0)
        if words[0] == "ww":
            _parses(words[1:], line)
        else:
            assert words[0] in SHELL, line
            _exists(words, line)


def _parses(words: list[str], line: str) -> None:
    """The command line is one that ``ww`` takes; nothing is run."""
    root = command()
    context = root.make_context("ww", list(words), resilient_parsing=False)
    rest = [*context._protected_args, *context.args] if hasattr(context, "_protected_args") else context.args
    name, one, arguments = root.resolve_command(context, list(rest))
    assert one is not None, line
    one.make_context(name, arguments, parent=context)
    if name == "bench":
        assert {word for word in arguments if not word.startswith("-")} <= {*BENCHMARKS, "all", "full"}, line


def _exists(words: list[str], line: str) -> None:
    if words[0] == "make":
        for target in [word for word in words[1:] if "=" not in word]:
            assert re.search(rf"^{target}:", read("Makefile"), re.MULTILINE), line
    elif words[0] in ("pytest", "cp"):
        paths = [word for word in words[1:] if "/" in word][: 1 if words[0] == "cp" else None]
        assert all((ROOT / path).exists() for path in paths), line
    elif words[0] == "docker":
        _compose(words, line)


def _compose(words: list[str], line: str) -> None:
    composed = yaml.safe_load(COMPOSE_FILE.read_text())
    assert words[1] == "compose", line
    profiles = {profile for service in composed["services"].values() for profile in service.get("profiles", [])}
    for option, value in pairwise(words):
        if option == "-f":
            assert ROOT / value == COMPOSE_FILE, line
        elif option == "--profile":
            assert value in profiles, line
        elif option in ("exec", "stop", "start", "logs"):
            named = [word for word in words[words.index(option) + 1 :] if not word.startswith("-")]
            assert named[0] in composed["services"], line


MEASURING = sorted(
    {
        tuple(sorted(set(words[2:]) & set(BENCHMARKS)))
        for block in NEEDING
        if block.needs == "minutes"
        for words in map(shlex.split, logical_lines(block.text))
        if words[:2] == ["ww", "bench"]
    }
    - {()}
)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("names", MEASURING, ids=" ".join)
def test_benchmarks_that_a_page_names_run_when_they_are_small(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Met or not: sizes this small say nothing of that."""
    assert run(["bench", *names, "--scale", "tiny", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)["benchmarks"]
    assert len(found) > len(names)
    assert [figure for figure in found if figure["failed"]] == []


LISTING = sorted(
    {
        line
        for block in NEEDING
        if block.needs == "minutes"
        for line in logical_lines(block.text)
        if line.startswith("ww ") and "--list" in line
    }
)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("line", LISTING)
def test_what_a_page_says_of_what_can_be_measured_is_shown(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In a block of commands that take minutes, this one takes none."""
    assert run(shlex.split(line)[1:]) == 0
    shown = capsys.readouterr().out
    assert [name for name in BENCHMARKS if not re.search(rf"^{name}\b", shown, re.MULTILINE)] == []


REDIS = [block for block in NEEDING if block.needs == "redis"]


@pytest.mark.parametrize("block", REDIS, ids=ids(REDIS))
def test_commands_for_a_broker_work_with_one(block: Block, tmp_path: Path, redis_server: RedisServer) -> None:
    ww = tmp_path / "bin" / "ww"
    ww.parent.mkdir()
    ww.write_text(f'#!/bin/sh\nexec {sys.executable} -m ww.cli "$@"\n')
    ww.chmod(0o755)
    memory = tmp_path / "memory"
    environment = clean_environment(
        PATH=f"{ww.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        PYTHONPATH=str(ROOT),
        T4DM_DATA_DIR=str(memory),
        XDG_CONFIG_HOME=str(tmp_path),
    )
    script = block.text.replace("redis://localhost:6379/0", redis_server.url)
    settings = Settings.load(data_dir=memory, redis_url=redis_server.url)
    with (tmp_path / "log").open("wb") as log:
        shell = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        assert shell.wait(90) == 0, (tmp_path / "log").read_text()
        if "ww worker" in script or "celery" in script:
            until(lambda: workers(settings), what="a worker answers")
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
