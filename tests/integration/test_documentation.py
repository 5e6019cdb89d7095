"""What the documentation tells people to type works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, clean_environment
from ww.cli.app import command
from ww.cli.run import run

PAGES = ("README.md", "docs/quickstart.md")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in that language."""
    return [
        (page, match[2])
        for page in PAGES
        for match in _FENCE.finditer((ROOT / page).read_text(encoding="utf-8"))
        if match[1] == language
    ]


def place(page: str, text: str) -> str:
    return f"{page}: {text.strip().splitlines()[0]}"


PYTHON = blocks("python")


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[place(*block) for block in PYTHON])
def test_a_python_example_runs(page: str, text: str, tmp_path: Path) -> None:
    environment = clean_environment(
        PYTHONPATH=str(ROOT), HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path), T4DM_DATA_DIR=str(tmp_path / "memory")
    )
    if "def test_" in text:
        (tmp_path / "test_example.py").write_text(text)
        plugin = [] if installed() else ["-p", "ww.pytest_plugin"]
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_example.py"]
    else:
        argv = [sys.executable, "-c", text]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if "print(" in text:
        assert "api-7" in done.stdout


def installed() -> bool:
    from importlib.metadata import entry_points

    return any(entry.value == "ww.pytest_plugin" for entry in entry_points(group="pytest11"))


def commands() -> list[str]:
    """Every ``ww ...`` line of the pages, without what follows a # or &."""
    lines = (line for _, text in blocks("bash") for line in text.splitlines())
    return list(dict.fromkeys(re.split(r"\s+[#&]", line)[0].strip() for line in lines if line.startswith("ww ")))


def test_the_commands_of_the_pages_work_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("T4DM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("T4DM_DATA_DIR", str(tmp_path / "memory"))
    (tmp_path / "notes.jsonl").write_text('{"content": "disk usage on api-7 is at 97%"}\n')
    (tmp_path / "chat.csv").write_text("text,who\nplease free some space,ann\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "runbook.md").write_text("# Disks\n\nDelete old images first.\n")
    assert len(commands()) >= 5
    for line in commands():
        argv = shlex.split(line)[1:]
        if argv[0] not in ("worker", "beat"):  # tried on a real broker in test_cli_pipeline
            assert run(argv) == 0, line


def test_every_command_that_the_pages_name_exists() -> None:
    text = "\n".join((ROOT / page).read_text(encoding="utf-8") for page in (*PAGES, "CHANGELOG.md"))
    named = set(re.findall(r"`ww ([a-z]+)\b", text))
    assert named <= set(command().commands), named - set(command().commands)


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md", "docs/decisions.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        assert ((ROOT / page).parent / target).exists(), target
