"""A trial: start the scene, make faults, wait for quiet, hold the ledgers against the stores, report."""

from __future__ import annotations

import contextlib
import logging
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import ConfigurationError, InvalidInput, Unavailable
from ww_core.maintenance.dead import dead_letters
from ww_core.maintenance.verify import verify
from ww_core.models import Counts, Episode, Verification
from ww_core.stores.pages import episodes
from ww_core.stores.ports import Added, GraphStore, VectorStore, Where
from ww_workers.chaos.faults import Faults
from ww_workers.chaos.ledger import Book
from ww_workers.chaos.scene import Scene
from ww_workers.chaos.texts import POISON, name_in

log = logging.getLogger(__name__)

WORKERS = 2
PRODUCERS = 2
START_SECONDS = 240.0
"""Until the first episode is embedded: workers load the model, two at a time on a busy machine."""
QUIET_SECONDS = 600.0
"""How long after the last fault the backlog may take."""
GAPS = (0.5, 3.0)
"""Seconds between two faults, from and to."""
FEWEST_KINDS = 6
"""However short a trial is, so many kinds of faults are made."""
STEP = 1000


@dataclass(frozen=True, slots=True)
class Report:
    """What a trial did and found. ``whole`` is the promise: none lost, none doubled, none back, all in their places."""

    seed: int
    faults: Mapping[str, int]
    attempted: int
    acknowledged: int
    """By a receipt that a producer got and wrote down."""
    lost: int
    """Acknowledged, never forgotten, and without a row."""
    doubled: int
    """A second row of one text, or a second point of one window."""
    returned: int
    """Forgotten with a receipt, and there again."""
    dead: int
    poisoned: int
    """Of the dead, those that were meant to die."""
    erased: int
    embedded: int
    recovery_seconds: float
    """From the last fault until everything was embedded, dead or erased and every point in its place."""
    quiet: bool
    """Whether that came about in time."""
    verification: Verification

    @property
    def whole(self) -> bool:
        return self.quiet and self.verification.ok and not (self.lost or self.doubled or self.returned)


def scratch(parent: Path | None, settings: Settings) -> Path:
    """A new directory for a trial. Raises InvalidInput, ConfigurationError for whatever is somebody's own."""
    given = [name for name in ("redis_url", "qdrant_url", "neo4j_uri") if getattr(settings, name) is not None]
    if given:
        raise ConfigurationError(
            f"chaos starts its own servers, and {', '.join(given)} names one of yours",
            hint="unset it: chaos kills what it works on",
        )
    if parent is not None:
        parent = parent.absolute()
        if parent.exists() and (not parent.is_dir() or any(parent.iterdir())):
            raise InvalidInput(
                f"{str(parent)!r} is not empty: chaos works on a directory of its own making",
                hint="name one that does not exist, or leave it out",
            )
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="ww-chaos-", dir=parent))


def run(
    directory: Path,
    *,
    minutes: float,
    seed: int,
    settings: Settings,
    neo4j: Path | None = None,
    qdrant: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Make faults for so many minutes in ``directory`` (of ``scratch``). Raises Unavailable where it cannot start.

    ``neo4j``: where a Neo4j server is installed, to keep the record on one of its own. ``qdrant``: the program of a
    Qdrant server, to keep the vectors on one of its own.
    """
    model = {"embedding_model": settings.embedding_model, "embedding_device": settings.embedding_device}
    servers = {"neo4j": neo4j, "qdrant": qdrant}
    scene = Scene(directory, seed=seed, workers=WORKERS, producers=PRODUCERS, model=model, **servers)
    rng = random.Random(seed)
    faults = Faults(scene, rng)
    with _ended(scene, faults), _opened(scene) as deployment:
        scene.start(lambda: _counts(deployment))
        say(f"scratch deployment in {directory}")
        scene.until(lambda: _embedded(deployment), within=START_SECONDS, what="the first embedded episode")
        say("workers are embedding; the faults begin")
        _make_faults(faults, rng, minutes * 60, say)
        over = time.monotonic()
        scene.end_producers()
        scene.mend()
        say("no more faults; waiting for quiet")
        quiet = _wait_for_quiet(deployment, say)
        recovery = time.monotonic() - over
        # the proof is made by this process alone, with nobody at work
        for worker in scene.workers:
            worker.end(60)
        book = Book.read(scene.ledgers.iterdir())
        return judge(
            deployment.graph,
            deployment.vectors,
            book,
            seed=seed,
            faults=faults.done,
            recovery_seconds=recovery,
            quiet=quiet,
        )


@contextlib.contextmanager
def _ended(scene: Scene, faults: Faults) -> Iterator[None]:
    try:
        yield
    finally:
        scene.end()
        faults.close()


@contextlib.contextmanager
def _opened(scene: Scene) -> Iterator[Deployment]:
    deployment = Deployment(Settings.load(config=scene.config, origin="chaos"))
    try:
        yield deployment
    finally:
        deployment.close()


def remove(directory: Path) -> None:
    """Take a trial's directory away."""
    shutil.rmtree(directory, ignore_errors=True)


def _make_faults(faults: Faults, rng: random.Random, seconds: float, say: Callable[[str], None]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(faults.done) < FEWEST_KINDS:
        threading.Event().wait(rng.uniform(*GAPS))
        if kind := faults.next():
            say(kind.replace("_", " "))


def _wait_for_quiet(deployment: Deployment, say: Callable[[str], None]) -> bool:
    """Until nothing is on its way and everything is in its place; the sweeps of the workers bring it about."""
    end = time.monotonic() + QUIET_SECONDS
    told = ""
    while time.monotonic() < end:
        try:
            counts = deployment.graph.counts()
            left = counts.pending + counts.leased
            done = not left and not deployment.graph.unfinished_tombstones(1)
            if done and verify(deployment.graph, deployment.vectors).ok:
                return True
            news = f"{left} to go"
        except Unavailable as error:
            news = error.message
        if news != told:
            told = news
            say(news)
        threading.Event().wait(1.0)
    return False


def _counts(deployment: Deployment) -> Counts | None:
    """None while the graph store cannot be reached."""
    with contextlib.suppress(Unavailable):
        return deployment.graph.counts()
    return None


def _embedded(deployment: Deployment) -> int:
    counts = _counts(deployment)
    return 0 if counts is None else counts.embedded


def judge(
    graph: GraphStore,
    vectors: VectorStore,
    book: Book,
    *,
    seed: int,
    faults: Mapping[str, int],
    recovery_seconds: float,
    quiet: bool,
) -> Report:
    """Hold the ledgers against the stores. Nobody else may be at work on them."""
    rows = [row for page in episodes(graph, Where(archived=None), size=STEP) for row in page]
    living = {row.episode_id for row in rows}
    texts = Counter(name for row in rows if (name := name_in(row.content)))
    absent = book.acknowledged - living
    lost = (absent - book.forgetting) | {name for name in absent & book.forgetting if not _tombstone(graph, name)}
    dead = list(dead_letters(graph))
    contents = graph.get([letter.episode_id for letter in dead]) if dead else {}
    counts = graph.counts()
    for name in sorted(lost):
        log.error("lost %s", name, extra={"action": "chaos.lost", "episode_id": name})
    return Report(
        seed=seed,
        faults=dict(sorted(faults.items())),
        attempted=len(book.attempted),
        acknowledged=len(book.acknowledged),
        lost=len(lost),
        doubled=sum(number - 1 for number in texts.values()) + _doubled_points(vectors),
        returned=len(book.erased & living),
        dead=len(dead),
        poisoned=sum(POISON in row.content for row in contents.values()),
        erased=counts.erased,
        embedded=counts.embedded,
        recovery_seconds=round(recovery_seconds, 2),
        quiet=quiet,
        verification=verify(graph, vectors),
    )


def _tombstone(graph: GraphStore, episode_id: str) -> bool:
    """Whether the id was erased. Asked by storing it again, which only a tombstone refuses this way."""
    (answer,) = graph.add([Episode("asked for by chaos", episode_id, "chaos-asked", timestamp=None)])
    return answer.outcome is Added.ERASED


def _doubled_points(vectors: VectorStore) -> int:
    seen: Counter[tuple[str, int]] = Counter()
    after: str | None = None
    while True:
        page, after = vectors.walk(after=after, limit=STEP)
        seen.update(page)
        if after is None:
            return sum(number - 1 for number in seen.values())
