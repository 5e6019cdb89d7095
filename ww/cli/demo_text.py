"""Real prose that every machine with Python holds: the docstrings of the standard library."""

from __future__ import annotations

import inspect
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ww_core.errors import ConfigurationError
from ww_core.models import Episode

SESSION = "demo"
MOST_EPISODES = 1520
FEWEST_EPISODES = 1500
PER_MODULE = 40
"""Paragraphs taken of one top-level module, so that no package drowns the others."""
MIN_CHARS, MAX_CHARS = 60, 320
MIN_WORDS = 9
# Not prose about Python's library: tests, generated tables, tools of the interpreter's own build.
_LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idle_test|idlelib|lib2to3|encodings|site-packages|dist-packages|ensurepip|pydoc_data"
    r"|config-[^/]*|turtledemo|__phello__|_[a-z][^/]*)(/|\.py$|$)"
)
_OF_MODULE = re.compile(r'(?:\s*#[^\n]*\n|\s)*[rRuU]?"""(.*?)"""', re.DOTALL)
_OF_DEFINITION = re.compile(
    r'^[ \t]*(?:async def|def|class)[ \t]+(\w+)[^\n]*:[ \t]*\n[ \t]*[rRuU]?"""(.*?)"""', re.DOTALL | re.MULTILINE
)


def episodes() -> list[Episode]:
    """1 500 to 1 520 paragraphs in the order of their modules, each with its module and name as context.

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
    chosen: list[Episode] = []
    # The best documented modules first: enough on each topic that the topics show.
    for module in sorted(by_module, key=lambda name: (-len(by_module[name]), name)):
        chosen += _fullest(by_module[module], min(PER_MODULE, MOST_EPISODES - len(chosen)))
    if len(chosen) < FEWEST_EPISODES:
        raise ConfigurationError(
            f"the standard library at {sysconfig.get_paths()['stdlib']} has only {len(chosen)} paragraphs of prose",
            hint="run the demo with a Python whose sources are installed",
        )
    return chosen


def _fullest(found: list[Episode], size: int) -> list[Episode]:
    """The ``size`` longest, in the order of the source."""
    ranked = sorted(range(len(found)), key=lambda place: (-len(found[place].content), place))
    return [found[place] for place in sorted(ranked[:size])]


def _sources(root: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root).as_posix()
        if not _LEFT_OUT.search(relative):
            yield path, relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """(name, docstring) of the module ("") and of what it defines; found by their looks, which is ten times quicker
    than parsing the whole library and misses little."""
    try:
        source = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return  # an old encoding, or not ours to read
    opening = _OF_MODULE.match(source)
    if opening:
        yield "", inspect.cleandoc(opening[1])
    for found in _OF_DEFINITION.finditer(source):
        yield found[1], inspect.cleandoc(found[2])


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
