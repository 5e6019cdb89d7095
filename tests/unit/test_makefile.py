"""`make test` runs every test: what it leaves out of its first part is in its second."""

from __future__ import annotations

import re

from tests.processes import ROOT


def test_what_runs_alone_is_where_the_second_part_looks() -> None:
    (named,) = re.findall(r"^ALONE := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    places = [ROOT / place for place in named.split()]
    assert all(place.exists() for place in places)
    mark = "mark." + "alone"
    marked = [path for path in (ROOT / "tests").rglob("*.py") if mark in path.read_text(encoding="utf-8")]
    assert marked
    assert [path for path in marked if not any(path.is_relative_to(place) for place in places)] == []
