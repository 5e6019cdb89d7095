"""Real prose that every machine with Python holds: the docstrings of the standard library."""

from __future__ import annotations

import ast
import inspect
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ww_core.errors import ConfigurationError
from ww_core.models import Episode

SESSION = "demo"
MOST_EPISODES = 1800
FEWEST_EPISODES = 1500
PER_MODULE = 45
"""Paragraphs taken of one top-level module, so that no package drowns the others."""
MIN_CHARS, MAX_CHARS = 60, 600
MIN_WORDS = 9
# Not prose about Python's library: tests, generated tables, tools of the interpreter's own build.
_LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idle_test|idlelib|lib2to3|encodings|site-packages|dist-packages|ensurepip|pydoc_data"
    r"|config-[^/]*|turtledemo|__phello__|_[a-z][^/]*)(/|\.py$|$)"
)


def episodes() -> list[Episode]:
    """1 500 to 1 800 paragraphs in the order of their modules, each with its module and name as context.

    Read from the source files of the running interpreter; nothing is imported. Raises ConfigurationError where the
    interpreter has no sources.
    """
    by_module: dict[str, list[Episode]] = {}
    seen: set[str] = set()
    for path, module in _sources(Path(sysconfig.get_paths()["stdlib"])):
        top = by_module.setdefault(module.split(".")[0], [])
        for name, docstring in _docstrings(path):
            for text in _paragraphs(docstring):
                if text not in seen:
                    seen.add(text)
                    where = {"module": module, "name": name} if name else {"module": module}
                    top.append(Episode(content=text, session_id=SESSION, context=where))
    # The longest texts say most; of equal modules everything up to the limit, then second helpings all round.
    for found in by_module.values():
        found.sort(key=lambda one: (-len(one.content), one.content))
    helping, chosen = PER_MODULE, _helpings(by_module, PER_MODULE)
    while len(chosen) < FEWEST_EPISODES and helping < max(map(len, by_module.values()), default=0):
        helping *= 2
        chosen = _helpings(by_module, helping)
    if len(chosen) < FEWEST_EPISODES:
        raise ConfigurationError(
            f"the standard library at {sysconfig.get_paths()['stdlib']} has only {len(chosen)} paragraphs of prose",
            hint="run the demo with a Python whose sources are installed",
        )
    return chosen[:MOST_EPISODES]


def _helpings(by_module: dict[str, list[Episode]], size: int) -> list[Episode]:
    """Up to ``size`` of each module, cut evenly to the limit."""
    while sum(min(len(found), size) for found in by_module.values()) > MOST_EPISODES and size > 1:
        size -= 1
    return [one for module in sorted(by_module) for one in by_module[module][:size]]


def _sources(root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if not _LEFT_OUT.search(relative):
            yield path, relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # templates and the like that only look like modules
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield getattr(node, "name", ""), inspect.cleandoc(docstring)


def _paragraphs(docstring: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", docstring):
        text = " ".join(block.split())
        if MIN_CHARS <= len(text) <= MAX_CHARS and len(text.split()) >= MIN_WORDS and _is_prose(block, text):
            yield text


def _is_prose(block: str, text: str) -> bool:
    letters = sum(char.isalpha() or char in " ,.'" for char in text)
    indented = sum(line.startswith("   ") for line in block.splitlines())
    return (
        ">>>" not in text
        and text.isascii()
        and letters >= 0.9 * len(text)
        and indented <= 1
        and text[0].isupper()
        and text[-1] in ".:!?"
    )
