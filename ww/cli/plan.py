"""``ww plan``: what a deployment of a given size needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, note, plain, table
from ww_core.capacity import CHARACTERS

if TYPE_CHECKING:
    from rich.console import Console

    from ww_core.capacity import Demand, Plan


DAY = 86_400
"""Seconds."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(plan))


def plan(
    ctx: typer.Context,
    episodes: float = typer.Option(..., "--episodes", help="How many are kept; 1e9 is a billion."),
    rate: float = typer.Option(0.0, "--rate", help="How many are stored per second, in the mean."),
    characters: int = typer.Option(
        CHARACTERS, "--characters", help="Length of an episode, in the mean; by default a turn's or a paragraph's."
    ),
    windows: float | None = typer.Option(
        None, "--windows", help="Windows of an episode, in the mean; by default as many as its characters fill."
    ),
    replicas: int = typer.Option(1, "--replicas", help="Copies of each Qdrant shard."),
    encode_rate: float = typer.Option(
        0.0, "--encode-rate", help="Windows one GPU embeds a second, as `ww bench encoder` says there; 0: CPUs embed."
    ),
    results: float = typer.Option(0.0, "--results", help="Results of tasks called by name, a second, in the mean."),
    shard_memory: float = typer.Option(32.0, "--shard-memory", help="GiB of memory that one Qdrant shard may take."),
) -> None:
    """Reckon disk, memory, embedding cores or GPUs, time and shards from what was measured. Opens nothing."""
    from ww_core import capacity
    from ww_core.errors import InvalidInput

    for name, given, least, most, unit in (
        ("--episodes", episodes, 1, capacity.MOST_EPISODES, ""),
        ("--shard-memory", shard_memory, 0.001, 1_000_000, " GiB"),
    ):
        if not least <= given <= most:
            raise InvalidInput(f"{name} {given:g} is out of range", hint=f"use {least:g} to {most:g}{unit}")
    from ww.cli.opening import settings_of

    options = globals_of(ctx)
    kept = settings_of(options).result_expires
    filled = capacity.windows_of(characters) if windows is None else windows
    demand = capacity.Demand(
        round(episodes), rate, characters, filled, replicas, encode_rate, results=results, results_kept=kept
    )
    found = capacity.plan(demand, shard_memory=round(shard_memory * 2**30))
    measured = capacity.constants()
    if found.filled_seconds < capacity.HOUR:
        note(_too_few(demand, found))

    def show(console: Console) -> None:
        table(console, ("what", "#needs", "how it is known"), _rows(demand, found, shard_memory))
        for name, section in measured.items():
            console.print(f"{name}: measured {section['date']} on {section['machine']}: {section['command']}")

    def answer() -> dict[str, Any]:
        return {"demand": plain(demand), "plan": plain(found), "measured": plain(measured)}

    emit(options.json, answer, show)


def _too_few(demand: Demand, found: Plan) -> str:
    """What it means that an hour brings more than are kept."""
    seen = f"at {demand.rate:g} a second {demand.episodes:,} episodes are there after {_time(found.filled_seconds)}"
    day = f"{DAY * demand.rate:.3g}"
    return f"{seen}: planned as if older ones were forgotten as fast (a day's are --episodes {day})"


def _rows(demand: Demand, found: Plan, shard_memory: float) -> list[tuple[str, str, str]]:
    """What is needed, how much, and how that is known. ``shard_memory``: GiB."""
    whole = "measured, and a page cache for the whole database; with less it reads from the disk"
    held = "the same, vectors in memory and whole; qdrant_on_disk and qdrant_quantization take less"
    each = "measured; each embedder, and a worker of every other pool; the owner of the vectors counts above"
    engine = "measured on the embedded engine, to a million"
    mapped = f"{_size(found.vectors_mapped)} of it are pages of files, which may be taken back"
    nodes = "1 node" if found.nodes == 1 else f"{found.nodes} nodes"
    shards = f"each under {shard_memory:g} GiB; {nodes} where each holds one copy of one"
    filled = [("time until they are there", _time(found.filled_seconds), f"at {demand.rate:g} a second, as given")]
    return [
        ("preset", found.preset, "for so many episodes"),
        *(filled if demand.rate else ()),
        ("disk, graph in SQLite", _size(found.graph_disk), "measured slope, to a million"),
        ("disk, graph in Neo4j", _size(found.neo4j_disk), "measured slope, to 30 000; database and transaction logs"),
        ("memory, Neo4j", _size(found.neo4j_memory), whole),
        ("disk, vectors", _size(found.vectors_disk), engine),
        ("memory, vectors", _size(found.vectors_memory), f"{engine}; {mapped}"),
        (
            "disk, vectors on Qdrant",
            _size(found.qdrant_disk),
            f"measured slope, to 30 000; {demand.replicas} x every shard",
        ),
        ("memory, vectors on Qdrant", _size(found.qdrant_memory), held),
        ("memory, Redis", _size(found.redis_memory), "measured; grows with processes and results only"),
        ("memory, workers", _size(found.workers_memory), each),
        _embedders(demand, found),
        ("consolidation, all at once", _time(found.first_run_seconds), "measured slope, one session"),
        (
            "consolidation, an hour's",
            _time(found.hourly_run_seconds),
            "measured, and the same slope over what an hour brings",
        ),
        ("Qdrant shards", str(found.shards), shards),
    ]


def _embedders(demand: Demand, found: Plan) -> tuple[str, str, str]:
    from ww_core.capacity import BUSY

    if demand.encode_rate:
        return (
            "GPUs",
            str(found.gpus),
            f"{demand.encode_rate:g} a second each, as given, {BUSY:.0%} of the time",
        )
    return (
        "embedding cores",
        str(found.cpu_cores),
        f"measured slope over a text's length; busy {BUSY:.0%} of the time; for GPUs give --encode-rate",
    )


def _time(seconds: float) -> str:
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:,.1f} days"
    if seconds >= 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds:,.0f} s" if seconds >= 1 else f"{seconds:.1g} s"


def _size(size: int) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 2**20:,.1f} MiB"
