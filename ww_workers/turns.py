"""Of a worker that does everything, one child at a time embeds: another is free for queries, alerts and the rest."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ww_core.stores.ports import Queue
from ww_workers.ending import STOP_VARIABLE
from ww_workers.lifecycle import consumed


@contextmanager
def embedding() -> Iterator[bool]:
    """Whether this child may embed now; always, where its worker answers no queries.

    Who may not can leave it: the other child looks for more when its turn is over. A child that dies gives its turn
    back.
    """
    of_worker = os.environ.get(STOP_VARIABLE)
    if of_worker is None or Queue.QUERY not in consumed():
        yield True
        return
    path = Path(of_worker).with_name("embedding")
    path.parent.mkdir(mode=0o700, exist_ok=True)  # systemd removes what lies unused for days
    with path.open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
