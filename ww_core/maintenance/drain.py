"""Embedding what is pending: claim, embed, write the points, mark; for a bounded time, whatever goes wrong."""

from __future__ import annotations

import logging
import random
import threading
import time
import traceback as tracebacks
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol
from uuid import uuid4

from ww_core.config import Settings
from ww_core.embedding.errors import OutOfMemory
from ww_core.errors import ConfigurationError, InvalidInput, StoreUnavailable, Unavailable
from ww_core.maintenance.breaker import CircuitBreaker
from ww_core.maintenance.leases import Lease, Leases
from ww_core.maintenance.parts import Embedder, Failed, in_parts
from ww_core.maintenance.points import Sparse
from ww_core.maintenance.writing import Outage, Writer
from ww_core.models import State, Vector
from ww_core.observability.metrics import Metrics
from ww_core.stores.ports import Claim, Fingerprint, GraphStore, VectorStore

log = logging.getLogger(__name__)

MAX_SECONDS = 15.0
"""A drain gives way to others after that long, so that a worker's warm shutdown is bounded."""
YIELD_SECONDS = 0.25
"""Longest wait for writers after a part; never longer than the part took, so that half the time is left."""
LOOK_SECONDS = 0.02
EMPTY_LOOKS = 25
"""How often an empty claim is tried again while something is due: others may be claiming it."""
RETRY_SECONDS = 2.0
"""Delay before a text that failed is tried again; doubles with its deliveries."""
TRACEBACK_CHARS = 4000
MESSAGE_CHARS = 500


class WindowEmbedder(Embedder, Protocol):
    """What a drain needs of the embedding service."""

    @property
    def fingerprint(self) -> Fingerprint: ...

    def warm(self) -> None: ...

    def embed_windows(self, texts: Sequence[str]) -> list[Vector]: ...


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What one drain did."""

    embedded: int = 0
    failed: int = 0
    """Attempts counted against a text that will be tried again."""
    dead: int = 0
    more: bool = False
    """Something is due now: ring again."""
    retry_in: float = 0.0
    """Seconds until the next try makes sense, where something is out of order."""
    outage: str = ""
    """What is out of order, in one line."""


def never() -> bool:
    return False


def let_pass(
    should_yield: Callable[[], bool], should_stop: Callable[[], bool], at_most: float, clock: Callable[[], float]
) -> None:
    """Wait while somebody stores, ``at_most`` seconds."""
    end = clock() + at_most
    while should_yield() and clock() < end and not should_stop():
        _pause(LOOK_SECONDS / 4)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


class Drain:
    """Embeds pending episodes. One thread at a time; what it learns about outages lasts over runs.

    Only an error of a text that stands alone is counted against it: what fails is halved until it does, and the
    model must still embed another text. Anything else (stores, model, memory, ``interruptions``, a stop) gives the rows
    back without a trace, after a delay where something is out of order.
    """

    def __init__(
        self,
        graph: GraphStore,
        vectors: VectorStore,
        embedding: WindowEmbedder,
        settings: Settings,
        metrics: Metrics,
        *,
        sparse: Sparse | None = None,
        pieces: Callable[[Sequence[str]], list[bytes]] | None = None,
        interruptions: tuple[type[BaseException], ...] = (),
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self.graph = graph
        self.vectors = vectors
        self.embedding = embedding
        self.settings = settings
        self.metrics = metrics
        self.sparse = sparse
        self.pieces = pieces
        self.interruptions = interruptions
        self.breaker = breaker or CircuitBreaker()
        self.clock = clock
        self.retry_seconds = retry_seconds
        self._ready = False
        self._outage = ""
        """What opened the breaker last, as far as this drain knows."""
        self._at_stake = 1
        """Episodes that the last shift could not embed: a try that does not come as far as a claim fails for them."""

    def prepare(self) -> None:
        """Load the model and see that the collection is this model's; done once, and again after an outage.

        Raises ModelUnavailable, StoreUnavailable, ConfigurationError.
        """
        if not self._ready:
            self.vectors.ensure(self.embedding.fingerprint)
            self.embedding.warm()
            self._ready = True

    def run(
        self,
        *,
        max_seconds: float = MAX_SECONDS,
        should_stop: Callable[[], bool] = never,
        should_yield: Callable[[], bool] = never,
        on_progress: Callable[[DrainReport], None] | None = None,
    ) -> DrainReport:
        """Embed for at most about ``max_seconds``, a pass of the model longer at worst.

        ``should_stop`` ends it after the pass under way; ``should_yield`` says that somebody is storing right now.
        ``on_progress`` gets the figures so far, ``more`` where claims come in full. Never raises
        for what is out of order: the report says it.
        """
        wait = self.breaker.remaining
        if wait > 0:
            return DrainReport(retry_in=wait, outage=self._outage or "waiting after an outage")
        shift = _Shift(self, self.clock() + max_seconds, should_stop, should_yield, on_progress)
        try:
            if self.breaker.failures:
                self.vectors.ping()
            if not self.graph.has_work():
                self.in_order()
                return DrainReport()
            self.prepare()
            return shift.work()
        except (Unavailable, ConfigurationError, MemoryError, OSError) as error:
            return self.out_of_order(error)

    def in_order(self) -> None:
        """Close the breaker."""
        self.breaker.succeeded()
        self._at_stake = 1

    def out_of_order(
        self, error: BaseException, *, held: int = 0, embedded: int = 0, failed: int = 0, dead: int = 0
    ) -> DrainReport:
        """Open the breaker; the report of a drain that ended this way with ``held`` episodes claimed.

        Each of those is an attempt that failed, as each that is embedded is one that did not; the Error History gets
        one entry for all.
        """
        self._ready = False
        self._at_stake = held or self._at_stake
        delay = self.breaker.failed()
        reason = self._outage = f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
        self.metrics.tried_in_vain("embed", error, self._at_stake)
        log.warning("cannot embed: %s", reason, extra={"action": "drain.outage", "retry_in": round(delay, 2)})
        return DrainReport(embedded, failed, dead, more=False, retry_in=delay, outage=reason)


class _Shift:
    """One run of a drain."""

    def __init__(
        self,
        drain: Drain,
        deadline: float,
        should_stop: Callable[[], bool],
        should_yield: Callable[[], bool],
        on_progress: Callable[[DrainReport], None] | None,
    ) -> None:
        self._drain = drain
        self._deadline = deadline
        self._should_stop = should_stop
        self._should_yield = should_yield
        self._on_progress = on_progress
        self._leases = Leases(drain.graph, drain.settings, drain.metrics, drain.clock)
        self._failed = self._dead = 0
        self._writer = Writer(
            drain.graph,
            drain.vectors,
            drain.sparse,
            drain.metrics,
            refuse=self._refuse,
            pieces=drain.pieces,
            clock=drain.clock,
        )

    def work(self) -> DrainReport:
        drain = self._drain
        error: BaseException | None = None
        try:
            self._rounds()
            self._writer.settle(idle=self._leases.renew)
            drain.in_order()
        except Outage as outage:
            error = outage.__cause__ or outage
        except (Unavailable, MemoryError, OSError) as outage:
            error = outage
        except drain.interruptions:
            log.info("interrupted", extra={"action": "drain.interrupted"})
        finally:
            self._writer.close()
            report = self._report(error)
            self._leases.give_back(report.retry_in)
        self._tell(report)
        return report

    def _report(self, error: BaseException | None) -> DrainReport:
        if error is None:
            more = self._leases.held > 0 or self._due()
            return DrainReport(self._writer.written, self._failed, self._dead, more=more)
        return self._drain.out_of_order(
            error, held=self._leases.held, embedded=self._writer.written, failed=self._failed, dead=self._dead
        )

    def _due(self) -> bool:
        try:
            return self._drain.graph.has_work()
        except StoreUnavailable:
            return False

    # -- claiming and embedding

    def _rounds(self) -> None:
        graph, empty = self._drain.graph, 0
        while not self._over():
            claimed = self._leases.claim()
            if claimed is not None:
                empty = 0
                self._embed(self._leases.in_turn(claimed, self._over))
                if self._leases.trouble is not None:
                    self._writer.settle(idle=self._leases.renew)
                    raise self._leases.trouble
                continue
            self._writer.settle(idle=self._leases.renew)
            empty += 1
            if empty > EMPTY_LOOKS or not graph.has_work():
                return
            _pause(LOOK_SECONDS * (0.5 + random.random()))

    def _embed(self, leased: Iterable[tuple[Lease, Sequence[Claim]]]) -> None:
        """Have all claims go through the model one after the other, and hand on part by part what is made of them."""
        drain = self._drain
        left: dict[int, tuple[Lease, Claim]] = {}

        def texts() -> Iterator[list[str]]:
            before = 0
            for lease, claims in leased:
                held = set(lease.held)
                mine = [claim for claim in claims if claim.episode.episode_id in held]
                if mine and not self._over():
                    left.update(enumerate(((lease, claim) for claim in mine), before))
                    before += len(mine)
                    yield [claim.episode.content for claim in mine]

        since = drain.clock()
        parts = in_parts(
            drain.embedding, texts(), over=self._over, clock=drain.clock, interruptions=drain.interruptions
        )
        try:
            with closing(parts):
                for part in parts:
                    self._hand_on([(*left.pop(place), rows) for place, rows in part], since)
                    if self._over() or not self._leases.held:
                        return
                    since = drain.clock()
        except Failed as failed:
            self._halve(list(left.values()), failed.error)

    def _hand_on(self, part: Sequence[tuple[Lease, Claim, Vector]], since: float) -> None:
        """Have a part written that was begun at ``since``, and let others have their turn."""
        drain = self._drain
        seconds = drain.clock() - since
        drain.metrics.observe("embed.encode", seconds)
        for lease in {id(lease): lease for lease, _, _ in part}.values():
            held = set(lease.held)
            mine = [(c, rows) for owner, c, rows in part if owner is lease and c.episode.episode_id in held]
            if mine:
                self._writer.put(
                    lease, [claim for claim, _ in mine], [rows for _, rows in mine], idle=self._leases.renew
                )
        self._tell(DrainReport(self._writer.written, self._failed, self._dead, more=self._leases.full))
        let_pass(self._should_yield, self._should_stop, min(YIELD_SECONDS, seconds), drain.clock)
        self._leases.renew()

    def _halve(self, left: Sequence[tuple[Lease, Claim]], error: Exception) -> None:
        """Something fails on these; it is counted against a text that stands alone where the text is at fault."""
        if isinstance(error, MemoryError | OutOfMemory):
            if len(left) <= 1:
                raise Outage("memory") from error
        elif isinstance(error, Unavailable | ConfigurationError | OSError):
            raise Outage("the model") from error
        elif len(left) == 1:
            if not isinstance(error, InvalidInput):
                self._probe(error)
            self._refuse(*left[0], error)
            return
        elif not left:
            raise Outage("the model") from error
        middle = len(left) // 2
        for half in (left[:middle], left[middle:]):
            together = groupby(half, key=lambda claimed: claimed[0])
            self._embed([(lease, [claim for _, claim in claims]) for lease, claims in together])

    def _probe(self, error: Exception) -> None:
        """A model that fails on any text is out of order; nothing is wrong with this one."""
        try:
            self._drain.embedding.embed_windows([f"probe {uuid4().hex}"])
        except Exception as second:  # the same breadth as above
            raise Outage("the model") from second

    def _refuse(self, lease: Lease, claim: Claim, error: Exception) -> None:
        """Count an attempt against one text."""
        drain = self._drain
        tail = "".join(tracebacks.format_exception(error))[-TRACEBACK_CHARS:]
        delay = drain.retry_seconds * 2 ** min(claim.deliveries - 1, 8) * (0.5 + 0.5 * random.random())
        state = drain.graph.fail(
            lease.token,
            claim.episode.episode_id,
            error=f"{type(error).__name__}: {error}"[:MESSAGE_CHARS],
            traceback=tail,
            max_attempts=drain.settings.task_max_attempts,
            delay_seconds=delay,
        )
        lease.drop([claim.episode.episode_id])
        drain.metrics.tried_in_vain("embed", error)
        if state is State.DEAD:
            self._dead += 1
        elif state is not None:
            self._failed += 1
        log.warning(
            "cannot embed one text: %s",
            type(error).__name__,
            extra={"action": "drain.text_failed", "episode_id": claim.episode.episode_id, "state": state},
        )

    # -- time

    def _over(self) -> bool:
        return self._should_stop() or self._drain.clock() >= self._deadline

    def _tell(self, report: DrainReport) -> None:
        if self._on_progress is not None:
            self._on_progress(report)
