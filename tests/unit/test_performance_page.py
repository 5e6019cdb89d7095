"""docs/performance.md speaks of every setting and of every figure."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import fields

import pytest
import yaml

from tests.documentation import ROOT, inline, read
from ww.bench import BENCHMARKS, guide, stages
from ww_core.config import ALERTS, GUIDE_RANGES, Settings
from ww_core.config.template import default
from ww_core.hooks import POINTS
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


def test_every_gain_that_is_measured_has_a_row() -> None:
    source = "".join(
        (ROOT / "ww" / "bench" / f"{name}.py").read_text(encoding="utf-8") for name in ("guide", "servers")
    )
    measured = set(re.findall(r'(?:gain|_changed)\("(\w+)"', source))
    measured |= {row[0] for row in (*guide.RECALL, *guide.CONSOLIDATION, *guide.EMBEDDING)}
    section = read("docs/performance.md").split("### What each optimisation gains")[1].split("\n### ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    assert len(measured) > 15
    assert measured == {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_the_buffers_ranges_are_those_of_the_settings() -> None:
    for key, (low, high) in GUIDE_RANGES.items():
        default = Settings.model_fields[key].default
        assert f"| `{key}` | {default} | {low} to {high} |" in read("docs/performance.md")


@pytest.mark.parametrize("page", ["docs/performance.md", "docs/operations.md"])
def test_the_thresholds_are_those_of_the_settings(page: str) -> None:
    for name, low_is_bad in ALERTS.items():
        defaults = [Settings.model_fields[f"alert_{name}_{level}"].default for level in ("warning", "critical")]
        shown = [f"{value:g} ms" if name == "recall_p95" else f"{value:.0%}" for value in defaults]
        side = "below" if low_is_bad else "above"
        assert f"| `{name}` | {side} {shown[0]} | {side} {shown[1]} | `alert_{name}_warning`" in read(page)


def test_every_stage_that_is_named_is_measured() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "ww_core").rglob("*.py"))
    named = {name for name in NAMED if re.fullmatch(r"(store|embed|refresh|recall|hooks)\.\w+", name)}
    assert len(named) > 10
    points = {f"hooks.{point}" for point in POINTS}
    assert {name for name in named - points if f'"{name}"' not in source} == set()


@pytest.mark.parametrize(
    ("heading", "measured"), [("Storing one episode", stages.EPISODE), ("A recall", stages.RECALL)]
)
def test_a_table_of_stages_has_what_the_command_measures(heading: str, measured: tuple[str, ...]) -> None:
    section = read("docs/performance.md").split(f"### {heading}\n")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)`.*? \| ([\d.]+)\D*? \| ([\d.]+)% \|", section, re.MULTILINE)
    assert tuple(name for name, _, _ in rows) == measured
    whole = sum(float(spent) for _, spent, _ in rows)
    for name, spent, share in rows:
        assert 100 * float(spent) / whole == pytest.approx(float(share), abs=0.6), name


def test_every_row_beside_a_peer_names_its_benchmark_and_its_day() -> None:
    table = read("docs/performance.md").split("| `ww bench` |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.+?) \|$", table, re.MULTILINE)
    assert {name for name, _ in rows} <= set(BENCHMARKS)
    assert len(rows) > 5
    for name, when in rows:
        assert when == "the same" or re.match(r"\[?20\d\d-\d\d-\d\d", when), name


def test_the_defaults_beside_tuned_values_are_the_settings_own() -> None:
    section = read("docs/performance.md").split("### Tuned values")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+): (\S+)` \| (\S+) \| (.+) \|$", section, re.MULTILINE)
    assert len(rows) == section.count("\n| `")
    for key, tuned, shown, gain in rows:
        assert yaml.safe_load(shown) == default(key), key
        assert tuned != shown or "default" in gain or "no speed" in gain, f"{key}: {tuned} changes nothing"
