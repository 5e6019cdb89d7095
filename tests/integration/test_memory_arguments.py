"""What the public functions take and refuse: batches, ids and arguments, each refusal naming what is wrong."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest

from ww import Episode, errors
from ww.memory.episodic import EpisodicMemory


async def test_one_bad_item_refuses_no_other(memory: EpisodicMemory) -> None:
    items: list[Any] = [
        "first",
        "",
        {"content": "third", "importance": math.nan},
        {"role": "user", "content": "fourth"},
        5,
        "sixth",
    ]
    batch = await memory.store_batch(items)
    contents = [(await memory.get(r.episode_id)).content for r in batch.accepted]
    assert contents == ["first", "fourth", "sixth"]
    assert [index for index, _ in batch.rejected] == [1, 2, 4]
    assert all(isinstance(error, errors.InvalidInput) for _, error in batch.rejected)


async def test_a_batch_streams_and_keeps_its_order(memory: EpisodicMemory) -> None:
    read = 0

    async def lines() -> AsyncIterator[str]:
        nonlocal read
        for i in range(4500):
            read = i
            yield f"line {i}"

    batch = await memory.store_batch(lines())
    assert read == 4499
    listed = [episode async for episode in memory.list(limit=4500)]
    assert [e.content for e in listed] == [f"line {i}" for i in range(4500)]
    assert [e.episode_id for e in listed] == [r.episode_id for r in batch.accepted]
    newest = [episode async for episode in memory.list(newest_first=True, limit=2)]
    assert [e.content for e in newest] == ["line 4499", "line 4498"]


async def test_what_a_stream_gave_before_it_broke_is_stored(memory: EpisodicMemory) -> None:
    def lines() -> Iterator[str]:
        yield "one"
        yield "two"
        raise RuntimeError("the file ended early")

    with pytest.raises(RuntimeError, match="ended early"):
        await memory.store_batch(lines())
    assert [episode.content async for episode in memory.list()] == ["one", "two"]


@pytest.mark.parametrize("items", ["text", b"bytes", {"content": "x"}, 5, None, Episode("x")])
async def test_what_is_one_item_is_no_batch(memory: EpisodicMemory, items: object) -> None:
    with pytest.raises(errors.InvalidInput, match="store_batch takes an iterable"):
        await memory.store_batch(items)  # type: ignore[arg-type]


async def test_an_id_twice_is_one_episode_or_a_conflict(memory: EpisodicMemory) -> None:
    assert not (await memory.store("x", episode_id="a")).duplicate
    assert (await memory.store("x", episode_id="a")).duplicate
    with pytest.raises(errors.EpisodeConflict, match="'a'"):
        await memory.store("y", episode_id="a")
    batch = await memory.store_batch([{"content": "x", "episode_id": "a"}, {"content": "z", "episode_id": "a"}, "new"])
    assert [r.duplicate for r in batch.accepted] == [True, False]
    assert [(i, type(e)) for i, e in batch.rejected] == [(1, errors.EpisodeConflict)]


BAD_CALLS = [
    ("recall", ("",), {}, "query is empty"),
    ("recall", ("\u200b",), {}, "query is empty"),
    ("recall", ("x",), {"limit": 0}, "limit must be a whole number from 1 to 100, not 0"),
    ("recall", ("x",), {"limit": 10**9}, "not 1000000000"),
    ("recall", ("x",), {"limit": True}, "not True"),
    ("recall", ("x",), {"since": datetime(2026, 1, 1)}, "since 2026-01-01T00:00:00 has no time zone"),  # noqa: DTZ001
    ("recall", ("x",), {"outcome": "great"}, "outcome 'great' is unknown"),
    ("recall", ("x",), {"context": {"a": [1]}}, "context filter 'a'"),
    ("recall", ("x",), {"session_id": ""}, "session_id has 0 characters"),
    ("recall", ("x",), {"mode": "fast"}, "mode 'fast' is unknown"),
    ("recall", ("a\x00b",), {}, "query has a NUL"),
    ("get", ("",), {}, "episode_id has 0 characters"),
    ("forget", (), {}, "one episode_id or one session_id"),
    ("forget", ("a",), {"session_id": "b"}, "one episode_id or one session_id"),
    ("flush", (-1,), {}, "timeout must be seconds"),
    ("flush", (math.nan,), {}, "timeout must be seconds"),
    ("neighbours", ("a",), {"before": -1}, "before must be"),
    ("consolidate", ("\n",), {}, "session_id has a control character"),
]


@pytest.mark.parametrize(("name", "args", "keywords", "says"), BAD_CALLS, ids=[c[0] + ": " + c[3] for c in BAD_CALLS])
async def test_bad_arguments_are_named(
    memory: EpisodicMemory, name: str, args: tuple[object, ...], keywords: dict[str, object], says: str
) -> None:
    with pytest.raises(errors.InvalidInput) as refusal:
        await getattr(memory, name)(*args, **keywords)
    assert says in str(refusal.value)


@pytest.mark.parametrize("name", ["get", "forget", "neighbours", "about"])
async def test_unknown_ids_are_not_found(memory: EpisodicMemory, name: str) -> None:
    with pytest.raises(errors.NotFound, match="'nobody'"):
        await getattr(memory, name)("nobody")
    with pytest.raises(errors.NotFound, match="'nowhere'"):
        await memory.forget(session_id="nowhere")
