"""What producers did, written down before and after every call so that it outlives kill -9 and can be held against the
stores."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mark = Literal["A", "K", "F", "E"]
"""Attempted, acknowledged, forgetting, erased."""


class Ledger:
    """An append-only file of one process: a line for each mark, on disk before the call returns."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, mark: Mark, episode_ids: Iterable[str]) -> None:
        os.write(self._fd, "".join(f"{mark} {episode_id}\n" for episode_id in episode_ids).encode())
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


@dataclass(slots=True)
class Book:
    """All ledgers of a trial together."""

    attempted: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    forgetting: set[str] = field(default_factory=set)
    """Whose erasure was begun; it may have happened or not."""
    erased: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, paths: Iterable[Path]) -> Book:
        """A last line without its end was never finished, and so never counted on."""
        book = cls()
        of = {"A": book.attempted, "K": book.acknowledged, "F": book.forgetting, "E": book.erased}
        for path in paths:
            *lines, _ = path.read_text("utf-8").split("\n")
            for line in lines:
                mark, _, episode_id = line.partition(" ")
                of[mark].add(episode_id)
        return book
