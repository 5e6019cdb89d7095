"""A program that stores episodes until it is ended, and now and then forgets one that is still in flight.

Usage: python -m ww_workers.chaos.producer CONFIG LEDGER NAME SEED
"""

from __future__ import annotations

import random
import signal
import sys
import threading
from pathlib import Path

from ww_core.config import Settings
from ww_core.deployment import Deployment
from ww_core.errors import NotFound, Unavailable
from ww_core.memory import MemoryCore
from ww_core.models import Receipt
from ww_workers.chaos.ledger import Ledger
from ww_workers.chaos.texts import text
from ww_workers.runtimes import runtime_of

PAUSE_SECONDS = 0.15
"""Between two calls, so that two cores keep up with embedding what two producers store."""
LARGEST_BATCH = 5
FORGETS = 0.04
POISONS = 0.01
SESSIONS = ("chaos-a", "chaos-b", "chaos-c")


class Producer:
    """Stores under names of its own, each call between two lines of its ledger."""

    def __init__(self, memory: MemoryCore, ledger: Ledger, name: str, rng: random.Random) -> None:
        self._memory = memory
        self._ledger = ledger
        self._name = name
        self._rng = rng
        self._number = 0
        self._latest: list[str] = []

    def step(self) -> None:
        """One call of a store, or of a forget."""
        rng = self._rng
        if self._latest and rng.random() < FORGETS:
            self._forget(self._latest.pop(rng.randrange(len(self._latest))))
            return
        names = [self._new_name() for _ in range(rng.randint(1, LARGEST_BATCH))]
        items = [
            {
                "content": text(name, rng, poison=rng.random() < POISONS),
                "episode_id": name,
                "session_id": rng.choice(SESSIONS),
            }
            for name in names
        ]
        self._ledger.write("A", names)
        try:
            if len(items) == 1:
                stored: list[Receipt] = [self._memory.store(items[0])]
            else:
                stored, _ = self._memory.store_chunk(items, 0)
        except Unavailable:  # refused, so never acknowledged
            return
        self._ledger.write("K", [receipt.episode_id for receipt in stored])
        self._latest = [*self._latest, *(receipt.episode_id for receipt in stored)][-20:]

    def _new_name(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _forget(self, name: str) -> None:
        self._ledger.write("F", [name])
        try:
            self._memory.forget(name)
        except (Unavailable, NotFound):  # the record is erased all the same, or will be found so
            return
        self._ledger.write("E", [name])


def main() -> None:
    config, ledger, name, seed = sys.argv[1:]
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    deployment = Deployment.of(Settings.load(config=Path(config), origin="chaos"))
    runtime = runtime_of(deployment)
    out = Ledger(Path(ledger))
    producer = Producer(MemoryCore(deployment, runtime), out, name, random.Random(f"{seed}/{name}"))
    while not ended.wait(PAUSE_SECONDS):
        producer.step()
    runtime.close()
    deployment.close()
    out.close()


if __name__ == "__main__":
    main()
