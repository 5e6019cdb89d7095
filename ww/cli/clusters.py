"""``ww clusters``: what consolidation made, as a tree, or as a map to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ww.cli import recall
from ww.cli.map import write_map
from ww.cli.opening import reading
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, one_line, pick, table
from ww_core.consolidation.themes import themes_of
from ww_core.errors import InvalidInput
from ww_core.models import Cluster
from ww_core.sessions import must_exist
from ww_core.stores.pages import memberships

if TYPE_CHECKING:
    from rich.console import Console

    from ww_core.memory import MemoryCore

MEMBERS_PAGE = 1000
ABOUT = 10
"""Episodes that tell what a cluster is about."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(clusters))


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
    about: str | None = typer.Option(None, "--about", metavar="CLUSTER", help="What is known about one, instead."),
    page: Path | None = typer.Option(None, "--map", metavar="FILE.html", help="Write a page that shows the episodes."),
) -> None:
    """Show what consolidation made, by session and theme: sizes, labels, examples."""
    options = globals_of(ctx)
    if about is not None:
        with reading(ctx) as core:
            known = core.about(about, limit=ABOUT)
        emit(options.json, lambda: recall.as_json(known), lambda console: recall.show(console, known))
        return
    with reading(ctx) as core:
        must_exist(core.deployment.graph, options.session)
        found = core.clusters(options.session)
        held = {one.cluster_id: _members(core, one) for one in found} if members else {}
        if page is not None:
            try:
                drawn = write_map(core, _only_session(core) if options.session is None else options.session, page)
            except OSError as error:
                raise InvalidInput(f"--map {str(page)!r} cannot be written: {error.strerror}") from error

    def as_json() -> dict[str, Any]:
        shown = []
        for one in found:
            entry = pick(one, ("cluster_id", "label", "size", "keyphrases", "medoid"))
            if members:
                entry["members"] = held[one.cluster_id]
            shown.append(entry)
        above = [
            pick(one, ("theme_id", "label", "size")) | {"clusters": list(one.cluster_ids)} for one in themes_of(found)
        ]
        told: dict[str, Any] = {"clusters": shown, "themes": above}
        return told if page is None else told | {"map": str(page)}

    def show(console: Console) -> None:
        if page is None or members:
            _show_tree(console, found, held)
        if page is not None:
            console.print(f"{page}: {drawn} episodes; open it in a browser")

    emit(options.json, as_json, show)


def _only_session(core: MemoryCore) -> str:
    """The session that a map is of where none is named."""
    names = [one.session_id for one in core.sessions()]
    if len(names) != 1:
        hint = "nothing is stored yet" if not names else f"--session {one_line(names[0], 60)}"
        raise InvalidInput(f"--map shows one session, and there are {len(names)}", hint=hint)
    return names[0]


def _show_tree(console: Console, found: Sequence[Cluster], held: dict[str, list[str]]) -> None:
    from rich.text import Text

    if not found:
        console.print("no clusters yet; `ww consolidate` makes them")
    by_id = {one.cluster_id: one for one in found}
    for session_id in dict.fromkeys(one.session_id for one in found):
        here = sorted((c for c in found if c.session_id == session_id), key=lambda one: (-one.size, one.cluster_id))
        above = themes_of(here)
        total = sum(one.size for one in here)
        among = f" in {len(above)} themes" if above else ""
        heading = Text(one_line(session_id), style="bold")
        console.print(heading.append(f"  {len(here)} clusters{among}, {total} episodes", style="dim"))
        placed = {cluster_id for theme in above for cluster_id in theme.cluster_ids}
        loose = [one for one in here if one.cluster_id not in placed]
        for number, theme in enumerate(above, 1):
            last = number == len(above) and not loose
            branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
            console.print(Text(f"{branch}{theme.size:>5}  ").append(one_line(theme.label, 100), style="bold"))
            _show_branches(console, [by_id[name] for name in theme.cluster_ids], held, below)
        _show_branches(console, loose, held, "")


def _show_branches(console: Console, clusters: Sequence[Cluster], held: dict[str, list[str]], indent: str) -> None:
    from rich.text import Text

    for number, one in enumerate(clusters, 1):
        last = number == len(clusters)
        branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        line = Text(f"{indent}{branch}{one.size:>5}  ").append(one_line(one.label, 60), style="cyan")
        others = [phrase for phrase in one.keyphrases if phrase not in one.label][:3]
        if others:
            line.append("  " + one_line(" · ".join(others), 80), style="dim")
        console.print(line)
        room = max(20, console.width - 14 - len(indent))
        if one.medoid is not None:
            console.print(
                Text(f"{indent}{below}       ").append(f"“{one_line(one.medoid.content, room)}”", style="dim")
            )
        for episode_id in held.get(one.cluster_id, ()):
            console.print(Text(f"{indent}{below}       {one_line(episode_id)}"))


def _members(core: MemoryCore, cluster: Cluster) -> list[str]:
    found = memberships(core.deployment.graph, cluster.session_id, cluster.cluster_id, size=MEMBERS_PAGE)
    return [one.episode_id for page in found for one in page]
