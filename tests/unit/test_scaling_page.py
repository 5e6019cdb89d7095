"""docs/scaling.md says what each preset switches, and its record what is planned."""

from __future__ import annotations

import json
import re

import pytest

from tests.documentation import read
from ww.bench.capacity import WITHIN
from ww_core.capacity import Demand, Plan, plan
from ww_core.presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_switch_is_named_with_its_value(preset: str) -> None:
    section = re.search(rf"^### {preset}\n(.*?)^##", read("docs/scaling.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    named = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section[1], re.MULTILINE))
    assert named == {switch.key: json.dumps(switch.value).strip('"') for switch in PRESETS[preset]}


PLANNED = {"graph on disk": "graph_disk", "vectors on disk": "vectors_disk", "memory": "vectors_memory"}
"""Beginnings of what the record names, and the field of the plan that they are held against."""


def test_the_record_has_what_is_planned_and_how_far_it_is_off() -> None:
    table = read("docs/benchmarks/2026-11-24-capacity.md").split("| episodes | what |")[1].split("\n\n")[0]
    held = set()
    for episodes, what, measured, planned, off in re.findall(
        r"^\| (.*?) ?\| (.+) \| (.+) \| (.+) \| (\d+)% \|$", table, re.M
    ):
        if episodes:
            size, characters = re.findall(r"([\d ]+?) \((\d+)", episodes)[0]
            wanted: Plan = plan(Demand(int(size.replace(" ", "")), characters=int(characters)))
        (field,) = (field for name, field in PLANNED.items() if what.startswith(name))
        held.add((wanted.preset, field))
        assert _mebibytes(planned) == round(getattr(wanted, field) / 2**20, 1), (episodes, what)
        apart = abs(_mebibytes(planned) / _mebibytes(measured) - 1)
        assert (int(off), apart < WITHIN) == (round(100 * apart), True), (episodes, what)
    assert {preset for preset, _ in held} == {"small", "medium", "large"}
    assert {field for _, field in held} == set(PLANNED.values())


def _mebibytes(size: str) -> float:
    number, unit = size.replace(" ", "").replace("MiB", " 1").replace("GiB", " 1024").split()
    return float(number) * int(unit)
