"""What a deployment of a given size needs, reckoned from constants that were measured: see capacity.yaml."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ww_core.errors import InvalidInput

MOST_EPISODES = 1e12
BUSY = 0.7
"""Share of the time that an embedding worker may be at work: the rest catches up after a stop."""
CHARACTERS = 150
"""Of an episode, where nobody says: a turn of a long conversation has 143 (LoCoMo), a paragraph of prose 156."""
SHORTEST = 16
"""Characters of the texts whose slopes are the constants per episode; those per character count from there."""
PROCESSES = 6
"""Beside those that embed: one for each other pool, beat, and an application."""
HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for."""

    episodes: int
    rate: float = 0.0
    """Episodes stored per second, in the mean."""
    characters: int = CHARACTERS
    """Of an episode."""
    windows: float = 1.0
    """Points of an episode."""
    replicas: int = 1
    """Copies of each Qdrant shard."""
    encode_rate: float = 0.0
    """Windows that one GPU embeds per second, measured by ``ww bench encoder`` there; 0: the CPU embeds."""
    results: float = 0.0
    """Results per second that tasks called by name leave in Redis."""
    results_kept: float = HOUR
    """Seconds that they stay: ``result_expires``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes unless they say otherwise."""

    graph_disk: int
    vectors_disk: int
    vectors_memory: int
    """Resident in the process that owns the vectors, when it has answered so much that it grows no more."""
    vectors_mapped: int
    """The part of it that is pages of files, which the system may take back."""
    neo4j_disk: int
    """Database and transaction logs, where the graph is on Neo4j instead of ``graph_disk``."""
    neo4j_memory: int
    """Heap, page cache with the whole database in it, and what Java takes beside them."""
    qdrant_disk: int
    """Of all copies, where the vectors are on a Qdrant server instead of ``vectors_disk``."""
    qdrant_memory: int
    """Of all copies, with the vectors in memory and not compressed."""
    redis_memory: int
    workers_memory: int
    """Of all processes beside the one that owns the vectors: those that embed, and one for each other pool with
    its parent."""
    cpu_cores: int
    """Cores that embed ``rate`` texts of ``characters`` a second; 0 where GPUs do."""
    gpus: int
    """By ``encode_rate``; 0 where the CPU embeds."""
    first_run_seconds: float
    """Consolidating everything at once, as after an import."""
    hourly_run_seconds: float
    """Consolidating what an hour brings, on one core."""
    shards: int
    """Qdrant shards such that what one holds in memory fits ``shard_memory``."""
    nodes: int
    """Qdrant nodes at the least, one copy of one shard on each."""
    filled_seconds: float
    """Until so many episodes are stored at ``rate``; infinite where none are."""
    preset: str


@lru_cache(maxsize=1)
def constants() -> Mapping[str, Any]:
    """The measured numbers by section, each with its date, machine and command."""
    import yaml  # the command line reads this module for its defaults alone

    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return found


def plan(demand: Demand, *, shard_memory: int = 32 * 2**30) -> Plan:
    """What the demand needs. Raises InvalidInput."""
    _check(demand, shard_memory)
    embedded, qdrant, redis, workers = (constants()[name] for name in ("embedded", "qdrant", "redis", "workers"))
    points = demand.episodes * demand.windows
    growing = points * embedded["memory_mapped_per_point"]
    kept = embedded["graph_disk_fixed"] + demand.episodes * embedded["graph_disk_per_episode"]
    database, log = (_in_neo4j(demand, part) for part in ("database", "log"))
    neo4j = constants()["neo4j"]
    cores, gpus = _embedders(demand)
    served = points * qdrant["memory_per_point"]
    shards = max(1, math.ceil(served / shard_memory))
    copies = shards * demand.replicas
    results = demand.results * demand.results_kept * redis["per_result"]
    return Plan(
        graph_disk=round(kept + _text(demand) * embedded["graph_disk_per_character"]),
        vectors_disk=round(embedded["vectors_disk_fixed"] + points * embedded["vectors_disk_per_point"]),
        vectors_memory=round(embedded["memory_fixed"] + points * embedded["memory_per_point"] + growing),
        vectors_mapped=round(embedded["memory_mapped_fixed"] + growing),
        neo4j_disk=round(database + log),
        neo4j_memory=round(neo4j["memory_fixed"] + max(neo4j["page_cache_least"], database)),
        qdrant_disk=round(copies * qdrant["disk_fixed"] + demand.replicas * points * qdrant["disk_per_point"]),
        qdrant_memory=round(copies * qdrant["memory_fixed"] + demand.replicas * served),
        redis_memory=round(redis["fixed"] + (PROCESSES + cores + gpus) * redis["per_process"] + results),
        workers_memory=round(workers["fixed"] + max(1, cores + gpus) * workers["per_embedder"]),
        cpu_cores=cores,
        gpus=gpus,
        first_run_seconds=_run_seconds(demand.episodes),
        hourly_run_seconds=_run_seconds(demand.rate * HOUR),
        shards=shards,
        nodes=copies,
        filled_seconds=demand.episodes / demand.rate if demand.rate else math.inf,
        preset=tier(demand.episodes),
    )


def _text(demand: Demand) -> int:
    """Characters beyond those that the constants per episode hold."""
    return max(0, demand.characters - SHORTEST) * demand.episodes


def _in_neo4j(demand: Demand, part: str) -> float:
    """Bytes of the ``database`` or of the ``log``."""
    neo4j = constants()["neo4j"]
    return float(_text(demand) * neo4j[f"{part}_per_character"] + demand.episodes * neo4j[f"{part}_per_episode"])


def _embedders(demand: Demand) -> tuple[int, int]:
    """Cores, or GPUs, that embed the rate."""
    wanted = demand.rate * demand.windows / BUSY
    if demand.encode_rate:
        return 0, math.ceil(wanted / demand.encode_rate)
    return math.ceil(wanted * _window_seconds(demand)), 0


def _run_seconds(new: float) -> float:
    """Of one core, to consolidate so many new episodes, whatever is stored."""
    consolidation = constants()["consolidation"]
    return float(consolidation["seconds_fixed"] + new * consolidation["seconds_per_episode"])


def _window_seconds(demand: Demand) -> float:
    """Of one core, to embed one window."""
    encoder = constants()["encoder"]
    read = max(encoder["fewest_characters"], demand.characters / demand.windows)
    return float(encoder["seconds_per_window"] + read * encoder["seconds_per_character"])


def tier(episodes: int) -> str:
    """The preset meant for so many episodes."""
    for most, name in ((10_000, "small"), (100_000, "medium"), (1_000_000, "large")):
        if episodes <= most:
            return name
    return "very-large"


def windows_of(characters: int) -> float:
    """Windows of an English text of that length, in the mean, as the default model cuts it."""
    encoder = constants()["encoder"]
    if characters <= encoder["window_most_characters"]:
        return 1.0
    return float(characters / encoder["slice_characters"])


def _check(demand: Demand, shard_memory: int) -> None:
    bounds: tuple[tuple[str, float, float, float], ...] = (
        ("--episodes", demand.episodes, 1, MOST_EPISODES),
        ("--rate", demand.rate, 0, 1e9),
        ("--characters", demand.characters, 1, 50_000),
        ("--windows", demand.windows, 1, 1000),
        ("--replicas", demand.replicas, 1, 100),
        ("--encode-rate", demand.encode_rate, 0, 1e9),
        ("--results", demand.results, 0, 1e9),
        ("--shard-memory", shard_memory, 2**20, 2**50),
    )
    for name, value, least, most in bounds:
        if not (math.isfinite(value) and least <= value <= most):
            raise InvalidInput(f"{name} {value:g} is out of range", hint=f"use {least:g} to {most:g}")
