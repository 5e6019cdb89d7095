"""What a drain holds of the outbox: claimed in turn, renewed while it works, given back when it ends."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from uuid import uuid4

from ww_core.config import Settings
from ww_core.errors import StoreUnavailable
from ww_core.observability.metrics import Metrics
from ww_core.observability.summary import CLAIMABLE, CLAIMED
from ww_core.stores.ports import Claim, GraphStore

log = logging.getLogger(__name__)


class Lease:
    """The claims that one token holds, until they are marked, refused or given back. Thread-safe."""

    def __init__(self, token: str, claims: Sequence[Claim], seconds: float, now: float) -> None:
        self.token = token
        self.seconds = seconds
        self.renewed = now
        self._held = {claim.episode.episode_id: claim for claim in claims}
        self._lock = threading.Lock()

    @property
    def held(self) -> list[str]:
        with self._lock:
            return list(self._held)

    def drop(self, episode_ids: Collection[str]) -> None:
        with self._lock:
            for episode_id in episode_ids:
                self._held.pop(episode_id, None)


def _first_time(claims: Sequence[Claim]) -> bool:
    return all(claim.deliveries == 1 for claim in claims)


MOST_AHEAD = 2
"""Claims that may be held, whole or in part, when one more is taken."""


class Leases:
    """The leases of one run of a drain."""

    def __init__(self, graph: GraphStore, settings: Settings, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._graph = graph
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._leases: list[Lease] = []
        self.full = False
        """The last claim got as many rows as it asked for."""
        self.trouble: Exception | None = None
        """What ended ``in_turn``."""

    @property
    def held(self) -> int:
        """Episodes that are claimed and neither marked, refused nor given back."""
        return sum(len(lease.held) for lease in self._leases)

    def claim(self) -> tuple[Lease, list[Claim]] | None:
        """The next episodes that are due, None where there are none."""
        token, seconds = uuid4().hex, self._settings.embedding_lease
        before = self._clock()
        with self._metrics.timer("embed.claim"):
            claims = self._graph.claim(self._settings.embedding_claim_size, token=token, lease_seconds=seconds)
        if not claims:
            return None
        self.full = len(claims) >= self._settings.embedding_claim_size
        self._metrics.increment(CLAIMED, len(claims))
        self._metrics.increment(CLAIMABLE, self._settings.embedding_claim_size)
        lease = Lease(token, claims, seconds, before)
        self._leases = [other for other in self._leases if other.held]
        self._leases.append(lease)
        return lease, claims

    def in_turn(
        self, first: tuple[Lease, list[Claim]], over: Callable[[], bool]
    ) -> Iterator[tuple[Lease, list[Claim]]]:
        """``first``, and whenever more is asked for the next claim, as long as they come in full, not too many are held
        and it is not ``over``. One that fails is the ``trouble`` then, and not of whoever asks.

        What was handed out before is never held with anything else: it may be what killed a worker, and that shows by
        killing one again.
        """
        yield first
        claims = first[1]
        most = MOST_AHEAD * self._settings.embedding_claim_size
        while self.full and self.held < most and not over() and _first_time(claims):
            try:
                following = self.claim()
                if following is not None and not _first_time(following[1]):
                    self._release(following[0], 0.0)
                    return
            except Exception as error:  # raised again by the drain, when what it has is written
                self.trouble = error
                return
            if following is None:
                return
            yield following
            claims = following[1]

    def give_back(self, delay: float) -> None:
        """Release what is held; it is due again after ``delay`` seconds."""
        for lease in self._leases:
            try:
                self._release(lease, delay)
            except StoreUnavailable:
                log.warning(
                    "could not give rows back; their lease will end",
                    extra={"action": "drain.release_failed", "episodes": len(lease.held)},
                )
        self._leases.clear()

    def _release(self, lease: Lease, delay: float) -> None:
        if held := lease.held:
            self._graph.release(lease.token, held, delay_seconds=delay)
            lease.drop(held)

    def renew(self) -> None:
        """Extend those that a third of their time is over of."""
        now = self._clock()
        for lease in self._leases:
            if now - lease.renewed > lease.seconds / 3 and lease.held:
                lease.renewed = now
                if self._graph.extend(lease.token, lease_seconds=lease.seconds) == 0:
                    lease.drop(lease.held)
