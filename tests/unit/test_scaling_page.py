"""docs/scaling.md says what each preset switches."""

from __future__ import annotations

import json
import re

import pytest

from tests.documentation import read
from ww_core.presets import PRESETS


@pytest.mark.parametrize("preset", PRESETS)
def test_every_switch_is_named_with_its_value(preset: str) -> None:
    section = re.search(rf"^### {preset}\n(.*?)^##", read("docs/scaling.md"), re.MULTILINE | re.DOTALL)
    assert section is not None
    named = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section[1], re.MULTILINE))
    assert named == {switch.key: json.dumps(switch.value).strip('"') for switch in PRESETS[preset]}
