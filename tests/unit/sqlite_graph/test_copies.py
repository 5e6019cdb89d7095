"""Digests of texts in a SQLite graph store: filled from older files, right under concurrent changes, and erased."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.contract.graph_runs.runs import publish, put
from tests.contract.graphs import Clock, embed, episodes
from tests.processes import in_child
from ww_core.stores.embedded.graph import SqliteGraphStore, copies, migrations
from ww_core.stores.texts import digest


def text(i: int) -> str:
    return f"what was said in the year {i}"


def fill(graph: SqliteGraphStore, number: int) -> list[str]:
    """Episodes with different texts, placed by a run; their ids."""
    made = [replace(episode, content=text(i)) for i, episode in enumerate(episodes(number))]
    graph.add(made)
    embed(graph)
    publish(graph, [put(episode.episode_id, "c") for episode in made])
    return [episode.episode_id for episode in made]


def index(graph: SqliteGraphStore, limit: int = 1000) -> int:
    """Go through everything; in how many goes."""
    goes = 1
    while graph.index_texts("s", limit=limit):
        goes += 1
    return goes


def rows(path: Path) -> list[tuple[bytes, str]]:
    connection = sqlite3.connect(path)
    try:
        query = "SELECT k.digest, e.episode_id FROM digest k JOIN episode e ON e.seq = k.seq ORDER BY e.seq"
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def in_files(path: Path, numbers: Sequence[int]) -> list[int]:
    """Those whose text has its digest in a file of the store. A child reads: closing a file here drops our locks."""
    seen = path.parent.parent / "seen.npy"

    wanted = np.array([int.from_bytes(digest(text(i))[:8], "big") for i in numbers], np.uint64)

    def look() -> None:
        read = b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())
        windows = np.concatenate([np.frombuffer(read, ">u8", (len(read) - i) // 8, i) for i in range(8)])
        np.save(seen, np.isin(wanted, windows.astype(np.uint64)))

    assert in_child(look) == 0
    return [i for i, found in zip(numbers, np.load(seen), strict=True) if found]


def test_a_file_of_an_older_version_is_filled_in_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = migrations.scripts()
    monkeypatch.setattr(migrations, "scripts", lambda: known[:4])
    old = SqliteGraphStore(path, clock=Clock())
    names = fill(old, 25)
    old.close()
    monkeypatch.setattr(migrations, "scripts", lambda: known)
    graph = SqliteGraphStore(path, clock=Clock())
    assert graph.copies("s", [digest(text(3))]) == {}
    assert index(graph, limit=10) == 3
    assert rows(path) == [(digest(text(i)), name) for i, name in enumerate(names)]
    assert graph.copies("s", [digest(text(3))]) == {digest(text(3)): names[3]}
    assert index(graph, limit=10) == 1, "all is done"
    graph.close()


def test_what_changes_while_texts_are_read_is_right_afterwards(
    graph: SqliteGraphStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = fill(graph, 12)
    other = SqliteGraphStore(path, clock=Clock())
    write = copies.Copies._write

    def meanwhile(self: copies.Copies, session: int, texts: Sequence[tuple[bytes, int, int]]) -> None:
        if not rows(path):
            other.tombstone(episode_ids=[names[1]])
            other.update(names[2], content="something else")
            other.update(names[3], context={"of": "no importance"})
        write(self, session, texts)

    monkeypatch.setattr(copies, "STEP", 5)
    monkeypatch.setattr(copies.Copies, "_write", meanwhile)
    index(graph)
    found = {name: text for text, name in rows(path)}
    assert names[1] not in found
    assert found[names[2]] == digest("something else")
    assert found[names[3]] == digest(text(3))
    assert len(found) == 11
    assert graph.copies("s", [digest(text(2)), digest("something else")]) == {}, "it is not placed"
    other.close()


def test_a_process_that_dies_over_it_leaves_it_to_the_next(graph: SqliteGraphStore, path: Path) -> None:
    names = fill(graph, 12)

    def die() -> None:
        child = SqliteGraphStore(path, clock=Clock())
        copies.STEP = 5
        write, calls = copies.Copies._write, []

        def once(self: copies.Copies, session: int, texts: Sequence[tuple[bytes, int, int]]) -> None:
            calls.append(session)
            if len(calls) == 2:
                os._exit(7)
            write(self, session, texts)

        copies.Copies._write = once  # type: ignore[method-assign]
        child.index_texts("s", limit=100)

    assert os.waitstatus_to_exitcode(in_child(die)) == 7
    assert len(rows(path)) == 5
    assert index(graph) == 1
    assert sorted(name for _, name in rows(path)) == names


def test_no_digest_of_an_erased_text_is_left_in_any_file(graph: SqliteGraphStore, path: Path) -> None:
    """Not even where SQLite moved a row to another page: in random order, as hourly runs write them."""
    rng = random.Random(1)
    order = rng.sample(range(3000), 3000)
    for start in range(0, 3000, 300):
        part = sorted(order[start : start + 300])
        graph.add([replace(episodes(1, start=i)[0], content=text(i)) for i in part])
        embed(graph)
        publish(graph, [put(f"e{i:05d}", "c") for i in part], token=f"t{start}")
        index(graph)
    assert len(in_files(path, range(3000))) == 3000
    gone = rng.sample(range(3000), 1000)
    graph.tombstone(episode_ids=[f"e{i:05d}" for i in gone[:900]])
    for i in gone[900:]:
        graph.update(f"e{i:05d}", content="rewritten")
    assert len(in_files(path, gone)) < 20
    graph.scrub()
    assert in_files(path, gone) == []
    assert len(in_files(path, range(3000))) == 2000
    assert len(graph.copies("s", [digest(text(i)) for i in range(3000)])) == 2000
