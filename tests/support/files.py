"""What stands in files, byte by byte."""

from __future__ import annotations

from pathlib import Path


def files_with(needle: bytes, directory: Path) -> list[Path]:
    """The files below the directory that hold these bytes."""
    return [file for file in directory.rglob("*") if file.is_file() and needle in file.read_bytes()]
