"""The texts of a trial: each names itself, so that a row can be told from a second row of the same episode."""

from __future__ import annotations

import random
import re

POISON = "chaos-poison"
"""A text with this word cannot be embedded by the workers of a trial (see poison)."""
_SAID = (
    "the deploy of {} failed because the disk was full",
    "{} asked for the report of last week",
    "the meeting with {} was moved to the afternoon",
    "the test of {} passed after the second try",
    "{} is out of memory, restarted by hand",
)
_WHO = ("api-7", "the billing service", "Ada", "the night shift", "the new cluster", "the customer", "team blue")
_NAME = re.compile(r" \[([\w-]+)\]$")


def text(name: str, rng: random.Random, *, poison: bool = False) -> str:
    """A short text that ends in its episode's name."""
    said = rng.choice(_SAID).format(rng.choice(_WHO))
    return f"{said}{' ' + POISON if poison else ''} [{name}]"


def name_in(content: str) -> str:
    """The name a text ends in; empty where it is not of a trial."""
    found = _NAME.search(content)
    return found.group(1) if found else ""
