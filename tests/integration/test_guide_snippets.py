"""The guide's Python snippets run as they stand: in a fresh process, on an empty data directory and after work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.documentation import read
from tests.integration import guide
from tests.processes import ROOT

WORK = """
import asyncio
from ww import memory
async def work():
    things = ["disk", "network", "database"] * 5
    await memory.store_batch([f"note {i}: the {thing} needs attention" for i, thing in enumerate(things)])
    await memory.flush(timeout=120)
    assert len(await memory.recall("what is wrong with the disk")) > 0
    await memory.consolidate()
asyncio.run(work())
"""


def run(code: str, data_dir: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("T4DM_")}
    environment |= {"T4DM_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        cwd=data_dir.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("worked") / "data"
    run(WORK, data_dir)
    return data_dir


@guide.needs_guide
def test_the_guide_has_the_snippets_this_project_was_built_for() -> None:
    assert len(guide.snippets()) == 5


@pytest.mark.parametrize("snippet", guide.snippets(), ids=lambda s: s.name)
def test_snippet_runs_on_an_empty_data_directory(snippet: guide.Snippet, tmp_path: Path) -> None:
    check_output(snippet, run(guide.as_program(snippet), tmp_path / "data"))


@pytest.mark.parametrize("snippet", guide.snippets(), ids=lambda s: s.name)
def test_snippet_runs_in_a_fresh_process_after_work(snippet: guide.Snippet, worked: Path) -> None:
    check_output(snippet, run(guide.as_program(snippet), worked))


@guide.needs_guide
def test_all_snippets_run_one_after_another_in_the_process_that_worked(worked: Path) -> None:
    programs = [WORK, *map(guide.as_program, guide.snippets())]
    out = run("\n".join(f"exec({program!r}, {{'__name__': '__main__'}})" for program in programs), worked)
    assert len(out.splitlines()) == sum(snippet.code.count("print(") for snippet in guide.snippets())
    assert "Hit rate: nan" not in out
    assert "p50: nan" not in out
    assert "Cache hit rate: nan" not in out
    assert "pool utilization: nan" in out  # no Neo4j was used: nothing was measured


def check_output(snippet: guide.Snippet, out: str) -> None:
    printed = snippet.code.count("print(")
    assert len(out.splitlines()) == printed, out


@pytest.mark.parametrize("block", guide.settings_snippets(), ids=lambda b: next(iter(yaml.safe_load(b))))
def test_every_settings_block_is_understood(block: str, tmp_path: Path) -> None:
    from ww import Settings

    path = tmp_path / "t4dm.yaml"
    path.write_text(block)
    settings = Settings.load(config=path)
    for key, value in yaml.safe_load(block).items():
        assert getattr(settings, key) == value


@pytest.mark.parametrize("block", guide.settings_snippets(), ids=lambda b: next(iter(yaml.safe_load(b))))
def test_the_performance_page_says_what_every_tuned_value_gains(block: str) -> None:
    page = read("docs/performance.md")
    for key, value in yaml.safe_load(block).items():
        assert f"| `{key}: {str(value).lower()}` | " in page
