"""``ww consolidate``, ``clusters`` and ``runs``: what the background made of the episodes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillRunning
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.opening import drain, embedded, opened, reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, moment, one_line, pick, plain, table
from ww.cli.progress import bar
from ww_core.errors import InvalidInput
from ww_core.models import Cluster, Run

if TYPE_CHECKING:
    from rich.console import Console

    from ww.memory.episodic import EpisodicMemory
    from ww_core.memory import MemoryCore

LOOK_SECONDS = 0.2
RUN_FIELDS = ("run_id", "session_id", "status", "considered", "sampled", "assigned", "noise", "folded")
HISTORY_FIELDS = ("run_id", "session_id", "status", "started_at", "seconds", "considered", "sampled")
MEMBERS_PAGE = 1000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(everywhere(consolidate))
    app.command()(everywhere(clusters))
    app.command()(everywhere(runs))


def consolidate(
    ctx: typer.Context,
    all_sessions: bool = typer.Option(False, "--all-sessions", help="Every session (the default without --session)."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Wait until it is done."),
) -> None:
    """Cluster what is new, name the clusters, fold duplicates."""
    options = globals_of(ctx)
    if all_sessions and options.session is not None:
        raise InvalidInput("--all-sessions and --session exclude each other", hint="give one of them")
    with opened(ctx) as memory:
        if embedded(memory.settings) and wait:
            drain(memory)
        names = [options.session] if options.session else [one.session_id for one in memory.sync.sessions()]
        found = [_consolidated(memory, name, wait=wait) for name in names]
    emit(options.json, lambda: {"runs": [run_json(run) for run in found]}, lambda console: _show_runs(console, found))


def _consolidated(memory: EpisodicMemory, session_id: str, *, wait: bool) -> Run:
    if not wait:
        return memory.sync.consolidate(session_id, wait=0)
    if not sys.stderr.isatty():
        return memory.sync.consolidate(session_id)
    with ThreadPoolExecutor(1) as pool, bar(f"consolidating {one_line(session_id, 40)}", 1.0) as advance_to:
        future = pool.submit(memory.sync.consolidate, session_id)
        while True:
            try:
                return future.result(timeout=LOOK_SECONDS)
            except StillRunning:
                if future.done():
                    raise
                latest = memory.core.runs(session_id, limit=1)
                advance_to(latest[0].progress if latest else 0.0, 1.0)


def run_json(run: Run) -> dict[str, Any]:
    """A run as ``consolidate --json`` prints it."""
    return {
        **pick(run, RUN_FIELDS),
        "clusters": [pick(one, ("cluster_id", "label", "size", "change")) for one in run.clusters],
        "seconds": plain(run.seconds),
    }


def _show_runs(console: Console, found: Sequence[Run]) -> None:
    if not found:
        console.print("nothing to consolidate")
    for run in found:
        console.print(
            f"{one_line(run.session_id)}: {run.status}, {run.considered} considered, {run.sampled} sampled, "
            f"{run.assigned} in {len(run.clusters)} clusters, {run.noise} unclustered, {run.folded} folded, "
            f"{run.seconds:.1f} s" + (f" ({one_line(run.error)})" if run.error else "")
        )
        show_clusters(console, run.clusters, limit=10)


def show_clusters(console: Console, found: Sequence[Cluster], *, limit: int | None = None) -> None:
    """The largest clusters for people."""
    largest = sorted(found, key=lambda one: (-one.size, one.cluster_id))[:limit]
    if largest:
        table(
            console,
            ("#size", "label", "example"),
            [
                (one.size, one_line(one.label, 50), one_line(one.medoid.content, 120) if one.medoid else "")
                for one in largest
            ],
        )


def clusters(
    ctx: typer.Context,
    members: bool = typer.Option(False, "--members", help="The ids of each cluster's episodes too."),
) -> None:
    """Show what consolidation made."""
    options = globals_of(ctx)
    with reading(ctx) as core:
        found = core.clusters(options.session)
        held = {one.cluster_id: _members(core, one) for one in found} if members else {}

    def as_json() -> dict[str, Any]:
        shown = []
        for one in found:
            entry = pick(one, ("cluster_id", "label", "size", "keyphrases", "medoid"))
            if members:
                entry["members"] = held[one.cluster_id]
            shown.append(entry)
        return {"clusters": shown}

    def show(console: Console) -> None:
        if not members:
            show_clusters(console, found)
        for one in found if members else ():
            console.print(f"{one.size:>6}  {one_line(one.label)}")
            for episode_id in held[one.cluster_id]:
                console.print(f"        {one_line(episode_id)}")
        if not found:
            console.print("no clusters yet; `ww consolidate` makes them")

    emit(options.json, as_json, show)


def _members(core: MemoryCore, cluster: Cluster) -> list[str]:
    graph = core.deployment.graph
    found: list[str] = []
    while True:
        page = graph.memberships(
            cluster.session_id,
            after=found[-1] if found else None,
            limit=MEMBERS_PAGE,
            cluster_id=cluster.cluster_id,
        )
        found += [one.episode_id for one in page]
        if len(page) < MEMBERS_PAGE:
            return found


def runs(ctx: typer.Context, limit: int = typer.Option(50, "--limit", help="How many.")) -> None:
    """Show the history of consolidations, newest first."""
    options = globals_of(ctx)
    if limit < 1:
        raise InvalidInput(f"--limit must be at least 1, not {limit}")
    with reading(ctx) as core:
        found = core.runs(options.session, limit=limit)
    emit(
        options.json,
        lambda: {"runs": [pick(run, HISTORY_FIELDS) for run in found]},
        lambda console: table(
            console,
            ("started", "session", "status", "#considered", "#sampled", "#seconds", "id"),
            [
                (
                    moment(run.started_at),
                    one_line(run.session_id, 24),
                    run.status,
                    run.considered,
                    run.sampled,
                    f"{run.seconds:.1f}",
                    run.run_id,
                )
                for run in found
            ],
        ),
    )
