"""``ww recall``: the question and its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ww.cli import episodes, values
from ww.cli.opening import catch_up, opened, tell_backlog
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, harmless, moment, note, one_line, pick
from ww_core.errors import InvalidInput, NotFound
from ww_core.ingest import validate
from ww_core.models import Episode, Recall

if TYPE_CHECKING:
    from rich.console import Console

    from ww.memory.episodic import EpisodicMemory

FIELDS = (
    "episode_id",
    "content",
    "score",
    "components",
    "session_id",
    "timestamp",
    "context",
    "outcome",
    "cluster",
    "fold",
)
WORDS_ALONE = "bm25"
"""The mode of an answer that no model took part in."""

Beside = Mapping[str, Sequence[Episode]]
"""A result's id -> itself between its neighbours; empty where nobody asked for them."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(recall))


def recall(
    ctx: typer.Context,
    query: str = typer.Argument(..., metavar="QUERY"),
    limit: int = typer.Option(10, "--limit", help="How many results, 1 to 100."),
    offset: int = typer.Option(0, "--offset", help="Skip so many of the best: the next page."),
    also: list[str] = typer.Option([], "--also-session", metavar="ID", help="With --session: in this one, too."),
    cluster: list[str] = typer.Option([], "--cluster", metavar="ID", help="Only members; may be repeated."),
    flat: bool = typer.Option(False, "--flat", help="Search everything."),
    hierarchical: bool = typer.Option(False, "--hierarchical", help="Search the nearest clusters only."),
    since: str | None = typer.Option(None, "--since", metavar="TIME", help="Not before (ISO 8601, with offset)."),
    until: str | None = typer.Option(None, "--until", metavar="TIME", help="Before."),
    outcome: list[str] = typer.Option([], "--outcome", help="Only these outcomes; may be repeated."),
    context: list[str] = typer.Option([], "--context", metavar="KEY=VALUE", help="Only with this context."),
    mmr: float | None = typer.Option(None, "--mmr", help="Variety: 0 varied to 1 relevant."),
    archived: bool = typer.Option(False, "--archived", help="Also what has faded and was archived."),
    around: int = typer.Option(0, "--around", metavar="N", help="And N episodes before and after each result."),
    explain: bool = typer.Option(False, "--explain", help="Show the parts of each score."),
    as_text: bool = typer.Option(False, "--text", help="Print a dated block for a prompt."),
    max_tokens: int = typer.Option(1000, "--max-tokens", help="With --text: how long at most."),
    by_relevance: bool = typer.Option(False, "--by-relevance", help="With --text: best first, not in order of time."),
) -> None:
    """Find the episodes that answer a question, best first."""
    options = globals_of(ctx)
    if flat and hierarchical:
        raise InvalidInput("--flat and --hierarchical exclude each other", hint="give one of them")
    if also and options.session is None:
        raise InvalidInput("--also-session without --session", hint="without both, all sessions are searched")
    if around and as_text:
        raise InvalidInput("--around and --text exclude each other", hint="give one of them")
    # All of it is checked before a model is loaded.
    values.around(around)
    validate.content(query, "query")
    validate.limit(limit)
    after, before = values.time("--since", since), values.time("--until", until)
    matching = values.context(context)
    for one in outcome:
        validate.outcome(one)
    with opened(ctx) as memory:
        catch_up(memory)
        found = memory.sync.recall(
            query,
            session_id=[options.session, *also] if options.session is not None else None,
            limit=limit,
            offset=offset,
            since=after,
            until=before,
            outcome=outcome or None,
            context=matching or None,
            cluster=cluster or None,
            mmr=mmr,
            mode="flat" if flat else "hierarchical" if hierarchical else None,
            archived=None if archived else False,
            explain=explain,
        )
        if not len(found):
            tell_backlog(memory)
        beside = {one.episode_id: _beside(memory, one.episode_id, around) for one in (found if around else ())}
    if found.mode == WORDS_ALONE:
        note("no model took part: words alone decided (`ww doctor` says whether the model can be used)")
    block = found.as_text(max_tokens=max_tokens, order="relevance" if by_relevance else "time") if as_text else None
    emit(
        options.json,
        lambda: as_json(found, beside) if block is None else {**as_json(found), "text": block},
        lambda console: show(console, found, beside, explain=explain) if block is None else show_text(console, block),
    )


def _beside(memory: EpisodicMemory, episode_id: str, reach: int) -> Sequence[Episode]:
    """The episode between its neighbours; nothing where it was forgotten a moment ago."""
    try:
        return memory.sync.neighbours(episode_id, before=reach, after=reach)
    except NotFound:
        return ()


def as_json(found: Recall, beside: Beside | None = None) -> dict[str, Any]:
    """The answer as ``recall --json`` prints it."""
    results = [pick(one, FIELDS) for one in found]
    if beside:
        for one in results:
            one["around"] = [episodes.as_json(other) for other in beside[one["episode_id"]]]
    return {**pick(found, ("query", "mode", "took_ms")), "results": results}


def show_text(console: Console, block: str) -> None:
    """A block for a prompt, as it is."""
    from rich.text import Text

    console.print(Text(harmless(block)), soft_wrap=True)


def show(console: Console, found: Recall, beside: Beside | None = None, *, explain: bool = False) -> None:
    """The answer for people."""
    from rich.text import Text

    for rank, one in enumerate(found, 1):
        line = Text(f"{rank:>2}. ", style="bold")
        line.append(f"{one.score:.3f}", style="green")
        line.append(f"  {moment(one.timestamp)}  {one_line(one.session_id, 40)}", style="dim")
        if one.cluster is not None:
            line.append(f"  [{one_line(one.cluster.label, 60)}]", style="cyan")
        if one.fold is not None:
            line.append(f"  ×{one.fold.count}, {moment(one.fold.first)} to {moment(one.fold.last)}", style="dim")
        console.print(line)
        console.print(Text("    " + one_line(harmless(one.content))))
        if explain:
            parts = "  ".join(f"{name} {value:+.3f}" for name, value in one.components.items())
            console.print(Text("    " + parts, style="dim"))
        if beside:
            episodes.show_beside(console, beside[one.episode_id], one.episode_id, indent="    ")
    count = f"{len(found)} result{'' if len(found) == 1 else 's'}" if len(found) else "nothing found"
    console.print(Text(f"{count} in {found.took_ms:.0f} ms ({found.mode})", style="dim"))
