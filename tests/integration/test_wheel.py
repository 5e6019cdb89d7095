"""The wheel holds what it needs and works outside the checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from tests.processes import ROOT
from ww_core.version import VERSION

PACKAGES = ("ww", "ww_core", "ww_workers")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the wheel unpacked, as an installer would; built offline from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    sources.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "celeryconfig.py"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, sources / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(sources)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def ww(site: Path, folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """``ww`` of the wheel, run from a directory that is not the checkout."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("T4DM_")}
    script = (
        "import sys, ww, ww_core, ww_workers; site = sys.argv.pop(1);"
        "assert all(m.__file__.startswith(site) for m in (ww, ww_core, ww_workers)), ww.__file__;"
        "from ww.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", script, str(site), *argv],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(site), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_wheel_holds_the_packages_and_their_data(site: Path) -> None:
    assert {path.name for path in site.iterdir()} == {*PACKAGES, f"world_weaver-{VERSION}.dist-info"}
    for name in PACKAGES:
        assert (site / name / "py.typed").is_file()
    for pattern in ("*.sql", "*.cypher", "*.lua", "*.html", "*.yaml"):
        for path in (found for name in PACKAGES for found in (ROOT / name).rglob(pattern)):
            assert (site / path.relative_to(ROOT)).is_file(), path


def test_the_wheel_names_the_command_and_the_plugin(site: Path) -> None:
    distribution = PathDistribution(site / f"world_weaver-{VERSION}.dist-info")
    entries = {(entry.group, entry.name): entry.value for entry in distribution.entry_points}
    assert entries[("console_scripts", "ww")] == "ww.cli:main"
    assert entries[("pytest11", "world_weaver")] == "ww.pytest_plugin"
    assert set(distribution.metadata.get_all("Provides-Extra") or ()) == {"trace", "pytest-celery", "dev"}


def test_the_installed_command_stores_and_recalls_elsewhere(site: Path, tmp_path: Path) -> None:
    version = ww(site, tmp_path, "--version")
    assert (version.returncode, version.stdout) == (0, f"ww {VERSION}\n"), version.stderr
    place = ("--data-dir", str(tmp_path / "memory"), "--json")
    text = "Deploy of api-7 failed: the disk was full"
    stored = ww(site, tmp_path, "store", text, *place)
    assert stored.returncode == 0, stored.stderr
    assert json.loads(stored.stdout)["state"] == "embedded"
    found = ww(site, tmp_path, "recall", "why did the release break", *place)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["results"][0]["content"] == text
