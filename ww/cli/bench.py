"""``ww bench``: what this machine reaches, next to peers in the same run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.opening import settings_of
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, note, pick, table

if TYPE_CHECKING:
    from rich.console import Console

    from ww.bench import Figure

FIELDS = (
    *("name", "value", "unit", "target", "peer", "peer_name", "ratio", "met", "state"),
    *("judged", "low_is_good", "note", "failed"),
)
STATES = {"met": "met", "missed": "MISSED", "not judged": "not judged", None: "-"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(bench))


def bench(
    ctx: typer.Context,
    names: list[str] = typer.Argument(None, metavar="NAME|all", help="Which benchmarks; all by default."),
    scale: str = typer.Option("quick", "--scale", help="quick, or full: the sizes that the targets are stated for."),
    known: bool = typer.Option(False, "--list", help="Say which benchmarks there are."),
) -> None:
    """Measure this machine beside its peers; exit 1 where a target is missed. Nothing of yours is touched."""
    from ww.bench import BENCHMARKS, measure
    from ww.bench.figure import SCALES
    from ww_core.errors import InvalidInput

    options = globals_of(ctx)
    if known:
        what = {name: entry.what for name, entry in BENCHMARKS.items()}
        emit(options.json, lambda: {"names": what}, lambda console: table(console, ("name", "measures"), what.items()))
        return
    if scale not in SCALES:
        raise InvalidInput(f"--scale {scale!r} is unknown", hint="use quick or full")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores / 2:
        note(
            f"others use this machine (load {load:.1f} on {cores} cores): ratios hold, absolute figures come out worse"
        )
    found = []
    for figure in measure(names or [], settings_of(options), SCALES[scale], say=note, apart=True):
        note(f"  {figure.name}: {_number(figure.value)} {figure.unit}")  # a long run that is cut off has said this much
        found.append(figure)
    emit(
        options.json, lambda: {"benchmarks": [_json(figure) for figure in found]}, lambda console: _show(console, found)
    )
    if any(figure.met is False for figure in found):
        raise typer.Exit(1)


def _json(figure: Figure) -> dict[str, Any]:
    return pick(figure, FIELDS) | {"note": figure.remark}


def _show(console: Console, found: Sequence[Figure]) -> None:
    rows = []
    for figure in found:
        sign = "<=" if figure.low_is_good and figure.judged == "value" else ">="
        target = "" if math.isnan(figure.target) else f"{sign} {_number(figure.target)}"
        if target and figure.judged == "ratio":
            target += " x"
        peer = "" if math.isnan(figure.peer) else f"{_number(figure.peer)} {figure.peer_name}"
        ratio = "" if math.isnan(figure.ratio) else f"{figure.ratio:.2f} x"
        value = "-" if math.isnan(figure.value) else _number(figure.value)
        rows.append((figure.name, value, figure.unit, target, STATES[figure.state], ratio, peer, figure.remark))
    table(console, ("benchmark", "#value", "unit", "target", "", "#ratio", "peer", "note"), rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
