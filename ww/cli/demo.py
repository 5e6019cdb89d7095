"""``ww demo``: the whole path on real text, printed so that a newcomer sees what happened."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ww.cli.clusters import show_clusters
from ww.cli.demo_text import SESSION, episodes
from ww.cli.opening import drain
from ww.cli.options import everywhere, globals_of
from ww.cli.output import emit, one_line, pick
from ww.cli.progress import spinner
from ww.cli.recall import FIELDS
from ww_core.config import Settings
from ww_core.errors import ConfigurationError
from ww_core.models import Counts, Recall, Run

if TYPE_CHECKING:
    from rich.console import Console

    from ww.memory.episodic import EpisodicMemory

FOLDER = Path(".demo")
MARKER = "made-by-ww-demo"
"""A file that says: everything in this directory may be thrown away by the next demo."""
QUERIES = (
    "run another program and capture what it prints",
    "read the members of a zip archive",
    "compare two texts and show what changed",
    "copy a directory tree with its permissions",
    "a temporary directory that cleans up after itself",
)
RESULTS = 3
LARGEST = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(everywhere(demo))


@dataclass(frozen=True, slots=True)
class _Done:
    counts: Counts
    stored_seconds: float
    embedded_seconds: float
    run: Run
    answers: tuple[Recall, ...]
    seconds: float


def demo(ctx: typer.Context) -> None:
    """Show the main job on real text: the docstrings of Python's standard library, in .demo/."""
    options = globals_of(ctx)
    folder = options.data_dir or FOLDER
    started = time.perf_counter()
    _empty(folder)
    # Servers in the user's settings are left out: the demo touches nothing but its own directory.
    settings = Settings.load(
        config=options.config,
        origin="demo",
        data_dir=folder,
        redis_url=None,
        qdrant_url=None,
        neo4j_uri=None,
        embedding_mode="local",
    )
    with _memory(settings) as memory:
        done = _work(memory, started)
    emit(options.json, lambda: _json(done), lambda console: _show(console, done, folder))


@contextmanager
def _memory(settings: Settings) -> Iterator[EpisodicMemory]:
    from ww.memory.episodic import EpisodicMemory

    memory = EpisodicMemory(settings=settings)
    try:
        yield memory
    finally:
        memory.close()


def _empty(folder: Path) -> None:
    """Make the directory new; refuse one that the demo did not make."""
    try:
        if folder.exists():
            if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MARKER).is_file()):
                raise ConfigurationError(
                    f"{str(folder)!r} was not made by the demo and is left alone",
                    hint="run it in another directory, or give another --data-dir",
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, mode=0o700)
        (folder / MARKER).write_text("`ww demo` empties this directory each time it runs.\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{str(folder)!r} cannot be made new: {error.strerror}") from error


def _work(memory: EpisodicMemory, started: float) -> _Done:
    with spinner("reading docstrings"):
        texts = episodes()
    before = time.perf_counter()
    memory.sync.store_batch(texts)
    stored = time.perf_counter()
    drain(memory)
    embedded = time.perf_counter()
    with spinner("consolidating"):
        run = memory.sync.consolidate(SESSION)
    answers = tuple(memory.sync.recall(query, session_id=SESSION, limit=RESULTS) for query in QUERIES)
    return _Done(
        counts=memory.sync.counts(SESSION),
        stored_seconds=stored - before,
        embedded_seconds=embedded - before,
        run=run,
        answers=answers,
        seconds=time.perf_counter() - started,
    )


def _json(done: _Done) -> dict[str, Any]:
    return {
        "episodes": done.counts.acknowledged,
        "embedded": done.counts.embedded,
        "clusters": len(done.run.clusters),
        "recall": [
            {**pick(answer, ("query", "took_ms")), "results": [pick(one, FIELDS) for one in answer]}
            for answer in done.answers
        ],
        "seconds": done.seconds,
    }


def _show(console: Console, done: _Done, folder: Path) -> None:
    from rich.text import Text

    counts, run = done.counts, done.run
    console.print(Text("World Weaver remembers the docstrings of Python's standard library\n", style="bold"))
    console.print(
        f"stored        {counts.acknowledged:>6} episodes, durable, in {done.stored_seconds:.2f} s "
        f"({counts.acknowledged / max(done.stored_seconds, 1e-9):,.0f}/s)"
    )
    console.print(
        f"embedded      {counts.embedded:>6} of them in the background in {done.embedded_seconds:.1f} s "
        f"({counts.embedded / max(done.embedded_seconds, 1e-9):,.0f}/s, loading the model included)"
    )
    console.print(
        f"consolidated  {run.assigned:>6} into {len(run.clusters)} clusters in {run.seconds:.1f} s; "
        f"{run.noise} belong to none, {run.folded} are near-duplicates"
    )
    console.print(Text("\nThe largest clusters", style="bold"))
    show_clusters(console, run.clusters, limit=LARGEST)
    console.print(Text("\nFive questions", style="bold"))
    for answer in done.answers:
        console.print(Text(f"\n{answer.query}", style="cyan").append(f"  {answer.took_ms:.0f} ms", style="dim"))
        for one in answer:
            module = one_line(str(one.context.get("module", "")), 30)
            console.print(Text(f"  {one.score:.2f}  {module}: ").append(one_line(one.content, 110), style="dim"))
    place = f"--data-dir {folder}"
    console.print(Text("\nWhat to try next", style="bold"))
    hints = [
        (f"ww {place} clusters", "every cluster it found"),
        (f"ww {place} status", "what is where"),
        (f"ww {place} verify", "is everything in its place?"),
        ("ww ingest FILE...", "your own text, in your own memory"),
    ]
    if shutil.which("ww") is None:
        venv = Path(sys.prefix)
        shown = venv.relative_to(Path.cwd()) if venv.is_relative_to(Path.cwd()) else venv
        hints.insert(0, (f"source {shown / 'bin' / 'activate'}", "makes the command `ww` known"))
    width = max(len(command) for command, _ in hints)
    for command, what in hints:
        console.print(Text(f"  {command:<{width}}  ").append(what, style="dim"))
    console.print()
    console.print(f'ww {place} recall "{QUERIES[0]}"')
