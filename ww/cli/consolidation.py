"""``ww consolidate``: cluster what is new now, or show what that would change."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.clusters import show_clusters
from ww.cli.opening import drain, embedded, opened
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, one_line, pick, plain, table
from ww.cli.progress import bar
from ww_core.errors import InvalidInput, WorldWeaverError
from ww_core.models import Cluster, Run

if TYPE_CHECKING:
    from rich.console import Console

    from ww.memory.episodic import EpisodicMemory

LOOK_SECONDS = 0.2
RUN_FIELDS = ("run_id", "session_id", "status", "considered", "sampled", "assigned", "noise", "folded")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(everywhere(consolidate))


def consolidate(
    ctx: typer.Context,
    all_sessions: bool = typer.Option(False, "--all-sessions", help="Every session (the default without --session)."),
    wait: bool = typer.Option(True, "--wait/--no-wait", help="Wait until it is done."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would change, and change nothing."),
) -> None:
    """Cluster what is new, name the clusters, fold duplicates."""
    options = globals_of(ctx)
    if all_sessions and options.session is not None:
        raise InvalidInput("--all-sessions and --session exclude each other", hint="give one of them")
    if dry_run and not wait:
        raise InvalidInput(
            "--dry-run and --no-wait exclude each other", hint="a dry run leaves nothing to look at later"
        )
    with opened(ctx) as memory:
        if embedded(memory.settings) and wait:
            drain(memory)
        names = [options.session] if options.session else [one.session_id for one in memory.sync.sessions()]
        before = {name: _sizes(memory.core.clusters(name)) for name in names} if dry_run else {}
        if dry_run:
            found = [memory.sync.consolidate(name, dry_run=True) for name in names]
        else:
            found = [_consolidated(memory, name, wait=wait) for name in names]

    def show(console: Console) -> None:
        if not found:
            console.print("nothing to consolidate")
        for run in found:
            _show_figures(console, run)
            if dry_run:
                _show_difference(console, run, before[run.session_id])
            else:
                show_clusters(console, [one for one in run.clusters if one.change != "gone"], limit=10)

    emit(options.json, lambda: {"runs": [run_json(run) for run in found]}, show)


def _sizes(found: Sequence[Cluster]) -> dict[str, int]:
    return {one.cluster_id: one.size for one in found}


def _consolidated(memory: EpisodicMemory, session_id: str, *, wait: bool) -> Run:
    if not wait:
        return memory.sync.consolidate(session_id, wait=0)
    if not sys.stderr.isatty():
        return memory.sync.consolidate(session_id)

    def look() -> None:
        latest = memory.core.runs(session_id, limit=1)
        advance_to(latest[0].progress if latest else 0.0, 1.0)

    # the run itself is on this thread: Ctrl-C ends it
    with bar(f"consolidating {one_line(session_id, 40)}", 1.0) as advance_to, _meanwhile(look):
        return memory.sync.consolidate(session_id)


@contextmanager
def _meanwhile(look: Callable[[], None]) -> Iterator[None]:
    """Call ``look`` on a thread again and again during the block; an error of it only ends the looking."""
    over = threading.Event()

    def keep_looking() -> None:
        with suppress(WorldWeaverError):
            while not over.wait(LOOK_SECONDS):
                look()

    thread = threading.Thread(target=keep_looking, name="ww-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run_json(run: Run) -> dict[str, Any]:
    """A run as ``consolidate --json`` prints it."""
    return {
        **pick(run, RUN_FIELDS),
        "clusters": [pick(one, ("cluster_id", "label", "size", "change")) for one in run.clusters],
        "seconds": plain(run.seconds),
    }


def _show_figures(console: Console, run: Run) -> None:
    if run.status in ("done", "dry_run") and not run.considered:
        stand = f"; {len(run.clusters)} clusters stay as they are" if run.clusters else ""
        console.print(f"{one_line(run.session_id)}: nothing new{stand}")
        return
    console.print(
        f"{one_line(run.session_id)}: {run.status.replace('_', ' ')}, {run.considered} considered, "
        f"{run.sampled} sampled, {run.assigned} in {len(run.clusters)} clusters, {run.noise} unclustered, "
        f"{run.folded} folded, {run.seconds:.1f} s" + (f" ({one_line(run.error)})" if run.error else "")
    )


def _show_difference(console: Console, run: Run, before: Mapping[str, int]) -> None:
    """What a run would change: the clusters that come, go, or have another size."""
    labels = {one.cluster_id: one.label for one in run.clusters}
    rows = []
    for one in sorted(run.clusters, key=lambda one: (-one.size, one.cluster_id)):
        was = before.get(one.cluster_id, 0)
        if one.change == "kept" and one.size == was:
            continue
        parents = ", ".join(one_line(labels.get(name, name), 40) for name in one.parents)
        label = one_line(one.label, 60) + (f" (from {parents})" if parents else "")
        rows.append((one.change, was, one.size, f"{one.size - was:+d}", label))
    if rows:
        table(console, ("change", "#before", "#after", "#difference", "label"), rows)
    else:
        console.print("nothing would change")
