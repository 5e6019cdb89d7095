"""Lines that a command takes in: what became of them so far, and the refused ones named and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from ww.cli.output import note, pick
from ww_core.errors import InvalidInput
from ww_core.ingest.feed import Ingested
from ww_core.ingest.files import Place, reads
from ww_core.ingest.gunzip import DamagedFile

NAMED_REJECTS = 20
"""Refused lines that are named one by one; the rest is counted."""


class Intake:
    """What to answer of the lines so far."""

    def __init__(self) -> None:
        self.total = Ingested()
        self._refused = 0
        self._first_changed: Place | None = None
        self._changed = 0

    def answer(self) -> dict[str, Any]:
        return pick(self.total, ("accepted", "duplicates", "changed", "rejected"))

    def line(self) -> str:
        total = self.total
        changed = f"{total.changed} changed since and kept, " if total.changed else ""
        return f"{total.accepted} stored, {total.duplicates} already there, {changed}{total.rejected} refused"

    def anything(self) -> bool:
        """Whether there is anything to tell of yet."""
        return self.total != Ingested()

    def moved(self, so_far: Ingested, advance_to: Callable[[float, float | None], None]) -> None:
        self.total = so_far
        advance_to(so_far.accepted + so_far.duplicates + so_far.changed + so_far.rejected, None)

    def refused(self, place: Place, error: Exception) -> None:
        """Name the first ones on standard error."""
        if isinstance(error, DamagedFile):  # what follows is missing altogether
            note(f"{place}: {error}")
            return
        self._refused += 1
        if self._refused <= NAMED_REJECTS:
            note(f"{place}: {error}")

    def changed(self, place: Place) -> None:
        """Keep where the first one is."""
        self._first_changed = self._first_changed or place
        self._changed += 1

    def told(self, *, kept: bool) -> None:
        """Say which were changed since, and how many refused ones were not named; ``kept``: whether those stand in a
        file."""
        if self._changed:
            others = f" and {self._changed - 1} more" if self._changed > 1 else ""
            note(f"{self._first_changed}{others}: changed by `ww update` since, and kept as changed")
        if self._refused > NAMED_REJECTS:
            more = self._refused - NAMED_REJECTS
            note(f"{more} more lines were refused" + ("" if kept else "; --rejects keeps them"))


def opened_for_rejects(path: Path, read: Sequence[str]) -> IO[bytes]:
    """Where refused lines are kept, emptied first. Raises InvalidInput, also where it is among what is ``read``."""
    if reads(read, path):
        raise InvalidInput(
            f"--rejects {str(path)!r} is among the files to read, and would be emptied", hint="name another file"
        )
    try:
        return path.open("wb")
    except OSError as error:
        raise InvalidInput(f"--rejects {str(path)!r} cannot be written: {error.strerror}") from error
