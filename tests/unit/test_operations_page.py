"""docs/operations.md names what is logged as the code does."""

from __future__ import annotations

import re

from tests.documentation import ROOT, read

STATUSES = ("done", "failed", "cancelled")


def test_every_action_that_is_named_is_logged() -> None:
    code = "\n".join(path.read_text() for name in ("ww_core", "ww_workers") for path in (ROOT / name).rglob("*.py"))
    logged = set(re.findall(r'"action": f?"([\w.{}]+)"', code))
    logged |= {one.replace("{run.status}", status) for one in logged for status in STATUSES}
    section = read("docs/operations.md").split("## Logs")[1].split("\n## ")[0]
    named = set(re.findall(r"`([\w.]+)`", section.split("actions to look for:")[1]))
    assert len(named) > 8
    assert named - logged == set()
