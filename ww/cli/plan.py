"""``ww plan``: what a deployment of a given size needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, plain, table

if TYPE_CHECKING:
    from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(plan))


def plan(
    ctx: typer.Context,
    episodes: float = typer.Option(..., "--episodes", help="How many are kept; 1e9 is a billion."),
    rate: float = typer.Option(0.0, "--rate", help="How many are stored per second, in the mean."),
    characters: int = typer.Option(16, "--characters", help="Length of an episode, in the mean."),
    windows: float = typer.Option(
        1.0, "--windows", help="Windows of an episode, in the mean: 1 where texts are short."
    ),
    shard_memory: float = typer.Option(32.0, "--shard-memory", help="GiB of memory that one Qdrant shard may take."),
) -> None:
    """Reckon disk, memory, embedding cores and shards from what was measured. Opens nothing."""
    from ww_core import capacity
    from ww_core.errors import InvalidInput

    for name, value in (("--episodes", episodes), ("--shard-memory", shard_memory)):
        if not math.isfinite(value):
            raise InvalidInput(f"{name} {value:g} is no number to plan with", hint="for example --episodes 1e9")
    demand = capacity.Demand(round(episodes), rate, characters, windows)
    found = capacity.plan(demand, shard_memory=round(shard_memory * 2**30))
    measured = capacity.constants()

    def show(console: Console) -> None:
        rows = (
            ("preset", found.preset, "for so many episodes"),
            ("disk, graph in SQLite", _size(found.graph_disk), "measured slope"),
            (
                "disk, graph in Neo4j",
                _size(found.neo4j_disk),
                "measured slope of short texts; database and transaction logs",
            ),
            ("disk, vectors", _size(found.vectors_disk), "measured on the embedded engine, one copy"),
            ("memory, vectors", _size(found.vectors_memory), "measured on the embedded engine, one copy"),
            (
                "embedding cores",
                str(found.cpu_cores),
                f"CPU, busy {capacity.BUSY:.0%} of the time; a GPU was not measured",
            ),
            ("Qdrant shards", str(found.shards), f"each under {shard_memory:g} GiB; times the replication factor"),
        )
        table(console, ("what", "#needs", "how it is known"), rows)
        for section in measured.values():
            console.print(f"measured {section['date']} on {section['machine']}: {section['command']}")

    def answer() -> dict[str, Any]:
        return {"demand": plain(demand), "plan": plain(found), "measured": plain(measured)}

    emit(globals_of(ctx).json, answer, show)


def _size(size: int) -> str:
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 2**20:,.1f} MiB"
