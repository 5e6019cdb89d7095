"""Where a collection lies on disk, and which model's vectors it holds."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import qdrant_edge as edge

from ww_core.errors import ConfigurationError
from ww_core.stores import points
from ww_core.stores.embedded.vectors import engine
from ww_core.stores.ports import Fingerprint

FINGERPRINT_FILE = "fingerprint.json"
"""Beside the shard's files; written last, so that a collection without it was never finished."""


def path(directory: Path, fingerprint: Fingerprint) -> Path:
    """The directory of the shard, named by the fingerprint's digest."""
    return directory / fingerprint.digest()


def find(directory: Path) -> Fingerprint | None:
    """The fingerprint of the collection in the directory; None where there is none."""
    for file in sorted(directory.glob(f"*/{FINGERPRINT_FILE}")):
        try:
            fingerprint = Fingerprint(**json.loads(file.read_text("utf-8")))
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"{file} is damaged: {error}", hint="restore it, or remove its directory"
            ) from error
        if fingerprint.digest() == file.parent.name:
            return fingerprint
    return None


def create(directory: Path, fingerprint: Fingerprint) -> edge.EdgeShard:
    """A new, empty shard for vectors of the fingerprint."""
    home = path(directory, fingerprint)
    if home.exists():
        shutil.rmtree(home)  # never finished: nothing was acknowledged in it
    home.mkdir(mode=0o700, parents=True)
    shard = edge.EdgeShard.create(str(home), engine.config(fingerprint.dimension))
    for field, schema in engine.INDEXES.items():
        shard.update(edge.UpdateOperation.create_field_index(field, schema))
    shard.flush()
    draft = home / (FINGERPRINT_FILE + ".new")
    with draft.open("w", encoding="utf-8") as out:
        json.dump(asdict(fingerprint), out)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(home / FINGERPRINT_FILE)
    return shard


def another_model(stored: Fingerprint, asked: Fingerprint, place: Path | str) -> ConfigurationError:
    """The error that names both models."""
    return ConfigurationError(
        f"{place} holds vectors of {points.described(stored)}, not of {points.described(asked)}",
        hint="set embedding_model back, or use another data_dir or namespace",
    )
