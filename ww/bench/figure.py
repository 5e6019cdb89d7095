"""One measured figure with its target and its peer, and the sizes that are measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from ww_core.config import Settings

State: TypeAlias = Literal["met", "missed", "not judged"]

DAY = 86_400
"""Seconds; no benchmark takes as long."""


NO_PARTS: Mapping[str, int] = {key: 0 for key in Settings.model_fields if key.startswith("recall_weight_")}
DENSE_ONLY: Mapping[str, int] = {**NO_PARTS, "recall_weight_content": 1}
"""Settings of a recall whose score has no parts, or the text's meaning alone."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure in ``unit``. ``peer`` is what ``peer_name`` reached in the same run, in the same unit, nan without one.

    ``target`` is the least that is wanted (the most, where ``low_is_good``) of the value, or of the ratio where
    ``judged`` says so; nan where nothing is promised.
    """

    name: str
    value: float
    unit: str
    target: float = math.nan
    peer: float = math.nan
    peer_name: str = ""
    judged: Literal["value", "ratio"] = "value"
    low_is_good: bool = False
    note: str = ""
    failed: bool = False
    """Whether it could not be measured because something broke; counted as missed."""
    unjudged: str = ""
    """Why the value is not held against the target here, as of ``Scale.at_full``; empty where it is."""

    @property
    def remark(self) -> str:
        """The note, and why the target does not count here."""
        return "; ".join(filter(None, (self.note, self.unjudged)))

    @property
    def ratio(self) -> float:
        """How many times better than the peer; nan without one."""
        if not (self.value > 0 and self.peer > 0):
            return math.nan
        return self.peer / self.value if self.low_is_good else self.value / self.peer

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None where there is none, nothing was measured, or it does not count here."""
        if self.failed:
            return False
        if self.unjudged:
            return None
        reached = self.ratio if self.judged == "ratio" else self.value
        if not (math.isfinite(self.target) and math.isfinite(reached)):
            return None
        if self.judged == "value" and self.low_is_good:
            return reached <= self.target
        return reached >= self.target

    @property
    def state(self) -> State | None:
        """``met`` in a word; None where nothing is promised."""
        if self.met is not None:
            return "met" if self.met else "missed"
        return None if math.isnan(self.target) else "not judged"


def skipped(
    name: str,
    unit: str,
    why: str,
    target: float = math.nan,
    *,
    judged: Literal["value", "ratio"] = "value",
    low_is_good: bool = False,
) -> Figure:
    """A figure that could not be measured here, with what it would be held against."""
    return Figure(name, math.nan, unit, target, judged=judged, low_is_good=low_is_good, note=f"not measured: {why}")


def broken(name: str, why: str) -> Figure:
    """What stands for the figures of a benchmark that did not come to its end."""
    return Figure(name, math.nan, "", note=f"failed: {why}", failed=True)


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. The sizes are episodes unless they say otherwise."""

    name: Literal["tiny", "quick", "full"] = "quick"
    stored: int = 10_000
    singles: int = 300
    encoded: int = 200
    """Texts for the encoder."""
    drained: int = 600
    searched: int = 10_000
    queries: int = 100
    sampled: int = 2000
    """Vectors clustered."""
    grown: tuple[int, int, int] = (2000, 10_000, 500)
    """Consolidated: few and many stored, and how many new ones then come to either."""
    planned: tuple[int, ...] = (10_000,)
    """Held against what ``ww plan`` says."""

    @property
    def full(self) -> bool:
        """Whether the sizes are those that the targets are stated for."""
        return self.name == "full"

    def at_full(self, size: str = "") -> str:
        """Why a target that is stated for ``size`` does not count at this scale; empty at full scale."""
        return "" if self.full else f"judged at {size} (--scale full)" if size else "judged at --scale full"


SCALES = {
    "tiny": Scale("tiny", 500, 30, 20, 30, 500, 10, 300, (200, 400, 50), (500,)),
    "quick": Scale(),
    "full": Scale(
        "full", 50_000, 1000, 600, 1500, 100_000, 200, 2000, (10_000, 1_000_000, 5000), (10_000, 100_000, 1_000_000)
    ),
}


@dataclass(frozen=True, slots=True)
class Bench:
    """What a benchmark works with: an empty directory, the sizes, and settings whose stores are in the directory."""

    directory: Path
    scale: Scale
    settings: Settings
    say: Callable[[str], None] = field(default=lambda _: None)
    shared: Path | None = None
    """A directory of all benchmarks that run; by default this one's."""

    def place(self, name: str, **changes: object) -> Settings:
        """Settings with an empty data directory of their own, whose alerts nobody needs to check."""
        return self._at(self.directory / name, **changes)

    def kept(self, name: str, **changes: object) -> Settings:
        """The same, with a data directory that every benchmark gets by this name, whoever filled it."""
        return self._at((self.shared or self.directory) / "kept" / name, **changes)

    def _at(self, data_dir: Path, **changes: object) -> Settings:
        return self.settings.replace(**{"data_dir": data_dir, "alert_interval": DAY, **changes})


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile in milliseconds."""
    return 1000 * float(np.quantile(np.asarray(seconds), 0.95))


def wall(work: Callable[..., object], *arguments: object) -> float:
    """Seconds on the clock."""
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def cpu(work: Callable[[], object]) -> float:
    """Seconds of this process's CPU time: what the work costs, whoever else uses the machine."""
    started = time.process_time()
    work()
    return time.process_time() - started
