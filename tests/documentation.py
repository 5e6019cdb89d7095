"""The pages that people read, and the fenced blocks in them.

The word after three backticks is the language, then what the tests need to know: a file name (later blocks of the
page may import or read it) or ``needs=`` with what must be there. What the languages mean:

- ``bash``: commands to type. ``console``: commands after ``$ `` with what they print; ``…`` stands for anything.
- ``python``: a program or a test, run in a fresh process. ``yaml``: a t4dm.yaml. ``json``: an object.
- ``text``: an illustration; ``cypher`` and ``ini``: for other programs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ROOT

PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
LANGUAGES = frozenset({"bash", "console", "python", "yaml", "json", "text", "cypher", "ini"})
NEEDS = frozenset({"redis", "docker", "download", "minutes"})
"""A server, an engine, a network, or more time than a test may take."""

_FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block; ``line`` is that of its fence."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    text: str

    @property
    def needs(self) -> str:
        return next((word.removeprefix("needs=") for word in self.words if word.startswith("needs=")), "")

    @property
    def file(self) -> str:
        return next((word for word in self.words if not word.startswith("needs=")), "")

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(*languages: str, page: str | None = None) -> list[Block]:
    """The blocks in these languages (all without any), of one page or of all."""
    found = []
    for name in PAGES if page is None else (page,):
        text = read(name)
        for match in _FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(name, line, match[1], tuple(match[2].split()), match[3]))
    return [block for block in found if not languages or block.language in languages]


def inline(page: str) -> list[str]:
    """What stands between single backticks outside the blocks."""
    return _INLINE.findall(_FENCE.sub("", read(page)))


def write_files(page: str, directory: Path) -> None:
    """The page's named blocks as files."""
    for block in blocks(page=page):
        if block.file:
            path = directory / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def ids(found: list[Block]) -> list[str]:
    """What tests of these blocks are called."""
    return [block.place for block in found]
