"""Store what was read from files in chunks, count what became of each line, and keep what was refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import IO

from ww_core.errors import EpisodeConflict
from ww_core.ingest.files import Found, Place, Refused
from ww_core.models import BatchReceipt, Episode

CHUNK_EPISODES = 1000
"""Large enough that the durable write is shared by many, small enough that progress moves and memory stays small."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of every line: ``accepted`` are new, ``duplicates`` were there before, ``rejected`` were refused.

    ``changed`` were there before too, but an update has replaced their content since, which is kept.
    """

    accepted: int = 0
    duplicates: int = 0
    changed: int = 0
    rejected: int = 0


def feed(
    items: Iterable[Found | Refused],
    store: Callable[[Sequence[Episode]], BatchReceipt],
    *,
    rejects: IO[bytes] | None = None,
    on_rejected: Callable[[Place, Exception], None] = lambda place, error: None,
    on_changed: Callable[[Place], None] = lambda place: None,
    on_progress: Callable[[Ingested], None] = lambda so_far: None,
) -> Ingested:
    """Hand ``items`` to ``store`` in chunks, in order.

    ``rejects`` receives the bytes of every refused line as they stood in the file. ``on_rejected`` hears of each,
    ``on_changed`` of each line whose episode was changed since, ``on_progress`` after each chunk. Errors of ``store``
    itself end the run; chunks before it are kept.
    """
    iterator = iter(items)
    total = Ingested()

    def refuse(place: Place, error: Exception, raw: Iterable[bytes]) -> None:
        on_rejected(place, error)
        if rejects is not None:
            last = b""
            for part in raw:
                rejects.write(part)
                last = part or last
            if last and not last.endswith(b"\n"):
                rejects.write(b"\n")

    while True:
        chunk: list[Found] = []
        refused = 0
        for item in islice(iterator, CHUNK_EPISODES):
            if isinstance(item, Refused):
                refuse(item.place, item.error, item.raw)
                refused += 1
            else:
                chunk.append(item)
        if not chunk and not refused:
            return total
        receipt = store([found.episode for found in chunk]) if chunk else BatchReceipt((), ())
        changed = 0
        for index, error in receipt.rejected:
            if isinstance(error, EpisodeConflict) and error.corrected:
                on_changed(chunk[index].place)
                changed += 1
            else:
                refuse(chunk[index].place, error, (chunk[index].raw,))
        duplicates = sum(one.duplicate for one in receipt.accepted)
        total = Ingested(
            accepted=total.accepted + len(receipt.accepted) - duplicates,
            duplicates=total.duplicates + duplicates,
            changed=total.changed + changed,
            rejected=total.rejected + refused + len(receipt.rejected) - changed,
        )
        on_progress(total)
