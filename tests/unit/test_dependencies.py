"""What the packages import is what pyproject.toml asks for, and what constraints.txt pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.processes import ROOT

PACKAGES = ("ww", "ww_core", "ww_workers")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    return {normalised(re.split(r"[\[<>=!~;\s]", line, maxsplit=1)[0]) for line in lines}


def imported() -> Iterator[tuple[str, Path]]:
    """Every top-level module of somebody else's that a file of ours names."""
    for path in (found for package in PACKAGES for found in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Import(names):
                    modules = [name.name for name in names]
                case ast.ImportFrom(module=str(module), level=0):
                    modules = [module]
                case _:
                    modules = []
            for module in {name.partition(".")[0] for name in modules}:
                if module not in sys.stdlib_module_names and module not in PACKAGES:
                    yield module, path


def test_every_import_is_a_declared_dependency() -> None:
    providers, wanted = packages_distributions(), declared()
    undeclared = {
        module: str(path.relative_to(ROOT))
        for module, path in imported()
        if not wanted & {normalised(name) for name in providers.get(module, [module])}
    }
    assert undeclared == {}


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = {normalised(line.partition("==")[0]) for line in lines if "==" in line}
    assert declared() - pinned - {"pytest-celery"} == set(), "pytest-celery needs Docker and is in no test run here"
