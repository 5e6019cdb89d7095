"""What one process stores another one finds, from the moment it is embedded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, clean_environment
from ww.memory.episodic import EpisodicMemory

WRITER = """
import sys
from ww.memory.episodic import EpisodicMemory

with EpisodicMemory(session_id="shared", data_dir=sys.argv[1]) as memory:
    for line in sys.stdin:
        memory.sync.store(line.strip())
        memory.sync.flush(timeout=80)
        print("embedded", flush=True)
"""
FACTS = ("The blue crane on pier four is broken", "Harbour dues rose to nine crowns", "The pilot boat sails at dawn")


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "memory")],
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 0


def embed(writer: subprocess.Popen[str], text: str) -> None:
    """Have the writer store it, and return when it is embedded."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(text + "\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "embedded\n"


@pytest.mark.parametrize("reader_owns", [False, True], ids=["writer-owns-vectors", "reader-owns-vectors"])
def test_another_process_finds_it_as_soon_as_it_is_embedded(
    tmp_path: Path, writer: subprocess.Popen[str], reader_owns: bool
) -> None:
    if not reader_owns:
        embed(writer, "The first process that needs vectors owns them")
    with EpisodicMemory(data_dir=tmp_path / "memory") as reader:
        if reader_owns:
            assert len(reader.sync.recall("nothing is stored yet")) == 0
        for fact in FACTS:
            embed(writer, fact)
            # not within a second but at once: the first look after it was embedded has to find it
            best = reader.sync.recall(fact, session_id="shared", limit=1)
            assert [hit.content for hit in best] == [fact]
        info = reader.core.deployment.vectors.info()
        assert info["role"] == ("owner" if reader_owns else "client")
