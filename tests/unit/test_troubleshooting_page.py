"""docs/troubleshooting.md says what to do about whatever the doctor finds."""

from __future__ import annotations

import inspect
import re

from tests.documentation import read
from ww_workers import doctor

FAILING = (r'Finding\(\s*"([a-z ]+)",\s*False', r'\("([a-z ]+)", _')
"""A finding that is not ok, and a check that a store's or broker's error fails."""


def test_every_check_that_can_fail_has_a_row() -> None:
    source = inspect.getsource(doctor)
    failing = set(re.findall(r'Finding\(\s*"([a-z ]+)",\s*False', source)) | set(
        re.findall(r'\("([a-z ]+)", _', source)
    )
    failing -= {"dead letters"}  # told, and nothing that has to be mended at once
    section = read("docs/troubleshooting.md").split("## `ww doctor` says")[1].split("\n## ")[0]
    rows = set(re.findall(r"^\| ([a-z ]+) \|", section, re.MULTILINE)) - {"check"}
    assert failing - rows == set()
    assert len(failing) > 10
