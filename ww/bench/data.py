"""Labelled data sets that are not part of the package: where they are, and their texts."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path

BANKING, CLINC = "banking77-test.csv", "clinc150-test.jsonl"
OUT_OF_SCOPE = "oos"
VARIABLE = "WW_BENCH_DATA"


@dataclass(frozen=True, slots=True)
class Labelled:
    """Texts and their true labels, in the same order."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]


def folder() -> Path:
    """``WW_BENCH_DATA``, by default ../shared/data beside the checkout."""
    return Path(os.environ.get(VARIABLE, Path(__file__).parents[2].parent / "shared" / "data"))


def absent(name: str) -> str:
    """Why the file cannot be read, empty where it can."""
    return "" if (folder() / name).is_file() else f"{name} is not in {folder()} ({VARIABLE})"


def banking() -> Labelled:
    """banking77, test."""
    with (folder() / BANKING).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return Labelled(tuple(row["text"] for row in rows), tuple(row["category"] for row in rows))


def clinc(*, whole: bool = False) -> Labelled:
    """CLINC150, test, in scope; ``whole``: also the queries that are out of scope."""
    lines = (folder() / CLINC).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if whole or row["label"] != OUT_OF_SCOPE]
    return Labelled(tuple(row["text"] for row in rows), tuple(row["label"] for row in rows))
