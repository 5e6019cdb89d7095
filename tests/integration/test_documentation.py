"""What the pages say is so: their blocks, links, settings and examples; commands are tested beside this."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.documentation import LANGUAGES, NEEDS, PAGES, Block, blocks, ids, inline, read, write_files
from tests.processes import ROOT, clean_environment
from tests.support.reference import reference
from ww.cli.app import command
from ww_core.config import Settings

# -- what there is


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is(page: str) -> None:
    for block in blocks(page=page):
        assert block.language in LANGUAGES, f"{block.place}: no language that is tested"
        assert not block.needs or block.needs in NEEDS, block.place
    assert not re.findall(r"^ {4}(?:ww|docker|make|pytest|celery) ", read(page), re.MULTILINE), "indented commands"


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_every_command_and_option_that_a_page_names_exists(page: str) -> None:
    known = command().commands
    for text in inline(page):
        if not re.match(r"ww( |$)", text):
            continue
        words = [word for word in text.split()[1:] if word != "…"]
        while words and words[0].startswith("-"):
            words = words[2:] if words[0] in ("--config", "--data-dir", "--session") else words[1:]
        if not words or not words[0].islower():
            continue
        assert words[0] in known, f"{page}: `{text}`"
        options = {option for parameter in _parameters(known[words[0]]) for option in parameter.opts}
        named = {word.split("=")[0] for word in words if word.startswith("--")}
        assert named <= options, f"{page}: `{text}` has no {named - options}"


def _parameters(one: Any) -> list[Any]:
    return [*one.params, *(p for sub in getattr(one, "commands", {}).values() for p in sub.params)]


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", read(page)):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(_slug, headings), f"{target}#{anchor}"


def test_the_readme_leads_to_every_page() -> None:
    linked = {str((ROOT / target).resolve()) for target in re.findall(r"\]\(([^)#:\s]+)", read("README.md"))}
    assert {page for page in PAGES[1:] if str((ROOT / page).resolve()) not in linked} == set()


def test_the_reference_is_what_the_code_says() -> None:
    assert read("docs/reference.md") == reference(), "run python -m tests.support.reference"


# -- settings and objects


YAML = blocks("yaml")


@pytest.mark.parametrize("block", YAML, ids=ids(YAML))
def test_settings_in_a_page_are_taken(block: Block, clean: Path) -> None:
    path = clean / "t4dm.yaml"
    path.write_text(block.text)
    settings = Settings.load(config=path)
    for key in yaml.safe_load(block.text):
        assert settings.sources()[key].startswith(str(path)), key


def test_json_in_a_page_is_json() -> None:
    for block in blocks("json"):
        assert json.loads(block.text), block.place


# -- Python


def _imported(block: Block) -> set[str]:
    """The packages that an example imports."""
    found = set()
    for node in ast.walk(ast.parse(block.text, block.place)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def _importable(name: str, block: Block) -> bool:
    own = {Path(one.file).stem for one in blocks("python", page=block.page) if one.file}
    return name in own or importlib.util.find_spec(name) is not None


PYTHON = blocks("python")
TESTS = [block for block in PYTHON if "def test_" in block.text]
PROGRAMS = [page for page in PAGES if any(block not in TESTS for block in blocks("python", page=page))]
ABSENT = [block for block in PYTHON if block not in TESTS and any(not _importable(n, block) for n in _imported(block))]


def test_every_example_compiles() -> None:
    """Which is all that can be said here of those for a framework that is absent."""
    for block in PYTHON:
        compile(block.text, block.place, "exec")
    missing = [
        f"{name} is not installed, so {block.place} was only compiled"
        for block in ABSENT
        for name in sorted(_imported(block))
        if not _importable(name, block)
    ]
    if missing:
        pytest.skip("; ".join(missing))


@pytest.mark.parametrize("page", PROGRAMS)
def test_the_python_of_a_page_runs(page: str, quick_path: Path) -> None:
    write_files(page, quick_path)
    examples = [b for b in blocks("python", page=page) if b not in TESTS and b not in ABSENT]
    for number, block in enumerate(examples):
        (quick_path / f"example{number}.txt").write_text(block.text)
    # one process for the page: each example starts with names of its own
    code = [f"exec(compile(open('example{n}.txt').read(), {b.place!r}, 'exec'), {{'__name__': '__main__'}})" for n, b in
            enumerate(examples)]  # fmt: skip
    out = _python(quick_path, "-c", "\n".join(code))
    if any("print(" in block.text and not block.file for block in examples):
        assert out.strip(), "it prints nothing"


def test_the_tests_in_the_pages_pass(quick_path: Path) -> None:
    for number, block in enumerate(TESTS):
        directory = quick_path / Path(block.page).stem
        directory.mkdir(exist_ok=True)
        write_files(block.page, directory)
        if not block.file:
            (directory / f"test_{directory.name.replace('-', '_')}_{number}.py").write_text(block.text)
    plugin = [] if installed() else ["-p", "ww.pytest_plugin"]
    out = _python(quick_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, ".")
    assert f"{sum(block.text.count('def test_') for block in TESTS)} passed" in out


VIEW_TEST = """
from types import SimpleNamespace

from django.conf import settings

settings.configure(USE_TZ=True)

from django.test import RequestFactory

from assistant import background
from views import note


def test_what_is_posted_to_the_view_can_be_asked_for(ww_eager):
    request = RequestFactory().post("/note", {"text": "prefers to be called in the morning"})
    request.user = SimpleNamespace(pk=7)
    assert note(request).status_code == 202
    assert "in the morning" in background("when to call", "user-7")
    assert note(RequestFactory().get("/note")).status_code == 405
"""


def test_the_view_of_django_is_asked(quick_path: Path) -> None:
    pytest.importorskip("django", reason="django is not installed, so its view was only compiled")
    write_files("docs/how-to/django-celery.md", quick_path)
    (quick_path / "test_view.py").write_text(VIEW_TEST)
    plugin = [] if installed() else ["-p", "ww.pytest_plugin"]
    assert "1 passed" in _python(quick_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_view.py")


def _python(directory: Path, *arguments: str) -> str:
    environment = clean_environment(
        PYTHONPATH=os.pathsep.join([str(directory), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        HOME=str(directory),
        XDG_CONFIG_HOME=str(directory),
        XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
        T4DM_DATA_DIR=str(directory / "memory"),
    )
    argv = [sys.executable, *arguments]
    done = subprocess.run(argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    return done.stdout


def installed() -> bool:
    from importlib.metadata import entry_points

    return any(entry.value == "ww.pytest_plugin" for entry in entry_points(group="pytest11"))
