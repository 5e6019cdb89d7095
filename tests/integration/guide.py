"""The Python snippets of the performance guide, read from where it is; its text is not part of this project."""

from __future__ import annotations

import ast
import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

DEFAULT = Path(__file__).resolve().parents[2] / "../shared/seed/performance-tuning-guide.md"


@dataclass(frozen=True)
class Snippet:
    """``heading`` is the section it stands in, ``line`` the line of its first statement."""

    heading: str
    line: int
    code: str

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "-", self.heading.lower()).strip("-")


def path() -> Path:
    return Path(os.environ.get("WW_GUIDE") or DEFAULT)


def snippets() -> list[Snippet]:
    """In the order of the guide; none where it is absent."""
    if not path().is_file():
        return []
    found, heading, block, start = [], "", None, 0
    for number, line in enumerate(path().read_text(encoding="utf-8").splitlines(), 1):
        if block is not None:
            if line.startswith("```"):
                found.append(Snippet(heading, start, "\n".join(block)))
                block = None
            else:
                block.append(line)
        elif line.startswith("```python"):
            block, start = [], number + 1
        elif line.startswith("#"):
            heading = line.lstrip("# ").strip()
    return found


def settings_snippets() -> list[str]:
    """The t4dm.yaml blocks of the guide."""
    if not path().is_file():
        return []
    return re.findall(r"```yaml\n(.*?)```", path().read_text(encoding="utf-8"), re.DOTALL)


def as_program(snippet: Snippet) -> str:
    """The snippet as it stands, with the only additions allowed: an event loop and the name ``contents``."""
    tree = ast.parse(snippet.code)
    awaits = any(isinstance(node, ast.Await | ast.AsyncFor) for node in _outside_functions(tree))
    lines = ["import asyncio"]
    if any(isinstance(n, ast.Name) and n.id == "contents" for n in ast.walk(tree)):
        lines.append('contents = ["the deploy failed", "the disk was full", "the disk was enlarged"]')
    if not awaits:
        lines.append(snippet.code)
        lines += [f"asyncio.run({n.name}())" for n in tree.body if isinstance(n, ast.AsyncFunctionDef)]
        return "\n".join(lines)
    lines.append("async def main():")
    lines += ["    " + line for line in snippet.code.splitlines()]
    lines.append("asyncio.run(main())")
    return "\n".join(lines)


def _outside_functions(tree: ast.AST) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    stack = list(ast.iter_child_nodes(tree))
    while stack:
        node = stack.pop()
        nodes.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            stack.extend(ast.iter_child_nodes(node))
    return nodes


needs_guide = pytest.mark.skipif(not path().is_file(), reason=f"no performance guide at {path()}; set WW_GUIDE")
