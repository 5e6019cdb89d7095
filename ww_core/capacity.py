"""What a deployment of a given size needs, reckoned from constants that were measured: see capacity.yaml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ww_core.errors import InvalidInput

MOST_EPISODES = 1e12
BUSY = 0.7
"""Share of the time that an embedding worker may be at work: the rest catches up after a stop."""


@dataclass(frozen=True, slots=True)
class Demand:
    """``rate``: episodes stored per second, in the mean. ``characters``: of an episode. ``windows``: points of one."""

    episodes: int
    rate: float = 0.0
    characters: int = 16
    windows: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes unless they say otherwise. ``vectors_memory`` is resident in the process that owns the vectors."""

    graph_disk: int
    vectors_disk: int
    vectors_memory: int
    neo4j_disk: int
    """Database and transaction logs of short texts, where the graph is on Neo4j instead of ``graph_disk``."""
    cpu_cores: int
    """Cores that embed ``rate`` short texts a second."""
    shards: int
    """Qdrant shards such that the vectors of one fit ``shard_memory``."""
    preset: str


@lru_cache(maxsize=1)
def constants() -> Mapping[str, Any]:
    """The measured numbers by section, each with its date, machine and command."""
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return found


def plan(demand: Demand, *, shard_memory: int = 32 * 2**30) -> Plan:
    """What the demand needs. Raises InvalidInput."""
    _check(demand, shard_memory)
    embedded, neo4j, encoder = (constants()[section] for section in ("embedded", "neo4j", "encoder"))
    points = demand.episodes * demand.windows
    text = max(0, demand.characters - 16) * demand.episodes * embedded["graph_disk_per_character"]
    memory = points * embedded["memory_per_point"]
    return Plan(
        graph_disk=round(embedded["graph_disk_fixed"] + demand.episodes * embedded["graph_disk_per_episode"] + text),
        vectors_disk=round(embedded["vectors_disk_fixed"] + points * embedded["vectors_disk_per_point"]),
        vectors_memory=round(embedded["memory_fixed"] + memory),
        neo4j_disk=round(demand.episodes * (neo4j["database_per_episode"] + neo4j["log_per_episode"])),
        cpu_cores=math.ceil(demand.rate * demand.windows / (encoder["texts_per_core_second"] * BUSY)),
        shards=max(1, math.ceil(memory / shard_memory)),
        preset=tier(demand.episodes),
    )


def tier(episodes: int) -> str:
    """The preset meant for so many episodes."""
    for most, name in ((10_000, "small"), (100_000, "medium"), (1_000_000, "large")):
        if episodes <= most:
            return name
    return "very-large"


def _check(demand: Demand, shard_memory: int) -> None:
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("--episodes", demand.episodes, 1, MOST_EPISODES),
        ("--rate", demand.rate, 0, 1e9),
        ("--characters", demand.characters, 1, 50_000),
        ("--windows", demand.windows, 1, 1000),
        ("--shard-memory", shard_memory, 2**20, 2**50),
    )
    for name, value, least, most in bounds:
        if not (math.isfinite(value) and least <= value <= most):
            raise InvalidInput(f"{name} {value:g} is out of range", hint=f"use {least:g} to {most:g}")
