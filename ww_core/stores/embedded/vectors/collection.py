"""Where a collection lies on disk, and which model's vectors it holds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import qdrant_edge as edge

from ww_core.errors import ConfigurationError
from ww_core.stores import points
from ww_core.stores.embedded.vectors import engine
from ww_core.stores.ports import Fingerprint

MANIFEST = "collection.json"
"""Names the model and the current shard; written last, so that a collection without it was never finished."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A directory named by the fingerprint's digest, and in it the directory of the current shard."""

    home: Path
    fingerprint: Fingerprint
    number: int
    """Of the shard: a rewritten one gets the next."""
    cold: bool = False
    """Whether its shards leave everything on disk."""

    @property
    def shard(self) -> Path:
        return self.home / f"shard-{self.number}"

    def next(self) -> Collection:
        return replace(self, number=self.number + 1)

    def make(self, go_on: Callable[[], None] = lambda: None) -> edge.EdgeShard:
        """A new, empty shard; what an unfinished attempt left there is removed. ``go_on`` is called between steps."""
        self.discard()
        self.shard.mkdir(mode=0o700, parents=True)
        made = edge.EdgeShard.create(str(self.shard), engine.config(self.fingerprint.dimension, cold=self.cold))
        for field, schema in engine.indexes(cold=self.cold).items():
            go_on()
            made.update(edge.UpdateOperation.create_field_index(field, schema))
        return made

    def discard(self) -> None:
        """Remove this shard's files."""
        shutil.rmtree(self.shard, ignore_errors=True)

    def publish(self) -> None:
        """Make this shard the current one, durably and in one step, and remove all others."""
        draft = self.home / (MANIFEST + ".new")
        with draft.open("w", encoding="utf-8") as out:
            json.dump({"fingerprint": asdict(self.fingerprint), "shard": self.number}, out)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self.home / MANIFEST)
        self.tidy()

    def tidy(self) -> None:
        """Remove shards that were never finished or are no longer current."""
        for other in self.home.glob("shard-*"):
            if other != self.shard:
                shutil.rmtree(other, ignore_errors=True)


def find(directory: Path, *, cold: bool = False) -> Collection | None:
    """The collection in the directory; None where there is none."""
    for manifest in sorted(directory.glob(f"*/{MANIFEST}")):
        try:
            read = json.loads(manifest.read_text("utf-8"))
            found = Collection(manifest.parent, Fingerprint(**read["fingerprint"]), int(read["shard"]), cold)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(
                f"{manifest} is damaged: {error}", hint="restore it, or remove its directory and embed anew"
            ) from error
        if found.fingerprint.digest() == manifest.parent.name:
            return found
    return None


def new(directory: Path, fingerprint: Fingerprint, *, cold: bool = False) -> Collection:
    """Where the first shard of this model goes."""
    return Collection(directory / fingerprint.digest(), fingerprint, 1, cold)


def another_model(stored: Fingerprint, asked: Fingerprint, place: Path) -> ConfigurationError:
    """The error that names both models."""
    return ConfigurationError(
        f"{place} holds vectors of {points.described(stored)}, not of {points.described(asked)}",
        hint="set embedding_model back, or use another data_dir or namespace",
    )
