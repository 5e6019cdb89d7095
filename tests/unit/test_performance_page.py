"""docs/performance.md speaks of every setting and of every figure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields

from tests.documentation import inline, read
from ww_core.config import GUIDE_RANGES, Settings
from ww_core.observability.metrics import Snapshot
from ww_core.observability.prometheus import QUEUE_LENGTH, TABLE

NAMED = frozenset(inline("docs/performance.md"))


def test_every_setting_is_spoken_of() -> None:
    assert set(Settings.model_fields) - NAMED == set()


def test_no_setting_has_two_rows() -> None:
    """Of the tables of settings; those without a row are spoken of in the text."""
    rows: list[str] = []
    table = ""
    for line in read("docs/performance.md").splitlines():
        table = (table or line.split("|")[1].strip()) if line.startswith("|") else ""
        if table == "setting":
            rows += re.findall(r"`(\w+)`", line.split("|")[1])
    assert len(rows) > 50
    assert [name for name, times in Counter(rows).items() if times > 1] == []


def test_every_figure_is_spoken_of() -> None:
    figures = {*(f.name for f in TABLE), QUEUE_LENGTH, *(f.name for f in fields(Snapshot))}
    assert figures - NAMED == set()


def test_the_buffers_ranges_are_those_of_the_settings() -> None:
    for key, (low, high) in GUIDE_RANGES.items():
        default = Settings.model_fields[key].default
        assert f"| `{key}` | {default} | {low} to {high} |" in read("docs/performance.md")
