"""The whole path through the public functions: store, find, correct, cluster, forget."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ww import Episode, errors, hooks
from ww.memory.default import use
from ww.memory.episodic import EpisodicMemory
from ww_core.hooks import process_hooks
from ww_core.models import Receipt, State

TOPICS = {
    "disk": [
        "the disk of api-7 is full",
        "no space left on the volume of api-7",
        "the disk on api-7 ran out of space",
        "api-7 reports a full disk again",
        "the volume of api-7 has no space left",
        "disk space on api-7 is exhausted",
    ],
    "tea": [
        "Anna drinks green tea in the morning",
        "a cup of green tea for Anna",
        "Anna prefers green tea over coffee",
        "green tea is what Anna drinks",
        "Anna ordered another green tea",
        "the green tea that Anna likes is gone",
    ],
    "train": [
        "the train to Berlin leaves at nine",
        "we missed the train to Berlin",
        "the Berlin train was late again",
        "a ticket for the train to Berlin",
        "the train from Berlin arrived late",
        "the next train to Berlin is at ten",
    ],
}


@pytest.fixture
async def memory(tmp_path: Path) -> AsyncIterator[EpisodicMemory]:
    async with EpisodicMemory(data_dir=tmp_path / "data") as opened:
        yield opened


@pytest.fixture
def no_hooks() -> Iterator[None]:
    yield
    process_hooks().clear()


async def test_from_text_to_clusters_and_out_of_the_world_again(memory: EpisodicMemory) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    items = [
        {"content": text, "session_id": "notes", "timestamp": first + timedelta(minutes=i), "context": {"topic": topic}}
        for i, (topic, text) in enumerate((topic, text) for topic, texts in TOPICS.items() for text in texts)
    ]
    batch = await memory.store_batch(items)
    assert len(batch.accepted) == 18
    assert not batch.rejected
    await memory.flush(timeout=60)
    counts = await memory.counts()
    assert (counts.acknowledged, counts.embedded) == (18, 18)

    hits = await memory.recall("which host has no disk space", session_id="notes", limit=3)
    assert [hit.context["topic"] for hit in hits] == ["disk"] * 3
    assert hits[0].score == pytest.approx(sum(hits[0].components.values()), abs=1e-4)
    assert hits.took_ms > 0
    assert "api-7" in hits.as_text(max_tokens=100)
    assert len(await memory.recall("tea", context={"topic": "train"})) == 6
    early = await memory.recall("tea", until=first + timedelta(minutes=7))
    assert {hit.context["topic"] for hit in early} == {"disk", "tea"}

    preview = await memory.consolidate("notes", dry_run=True)
    assert preview.status == "dry_run"
    assert await memory.clusters("notes") == []
    run = await memory.consolidate("notes")
    assert run.status == "done"
    clusters = await memory.clusters("notes")
    assert len(clusters) >= 2
    largest = max(clusters, key=lambda cluster: cluster.size)
    within = await memory.recall("anything", cluster=largest.cluster_id, limit=100)
    assert len(within) == largest.size
    assert {hit.cluster.cluster_id for hit in within if hit.cluster} == {largest.cluster_id}
    known = await memory.about(largest.cluster_id, limit=3)
    assert {hit.episode_id for hit in known} <= {hit.episode_id for hit in within}
    assert [hit.score for hit in known] == sorted((hit.score for hit in known), reverse=True)
    assert known.as_text().count("\n") == 3
    again = await memory.consolidate("notes")
    assert again.considered == 0

    listed = [episode async for episode in memory.list("notes")]
    assert [episode.content for episode in listed] == [item["content"] for item in items]
    assert all(episode.state is State.EMBEDDED for episode in listed)
    around = await memory.neighbours(listed[6].episode_id, before=1, after=2)
    assert [e.episode_id for e in around] == [e.episode_id for e in listed[5:9]]

    gone = listed[0].episode_id
    receipt = await memory.forget(gone)
    assert (receipt.episodes, receipt.vectors) == (1, 1)
    with pytest.raises(errors.NotFound):
        await memory.get(gone)
    assert gone not in [hit.episode_id for hit in await memory.recall(listed[0].content, limit=100)]
    with pytest.raises(errors.EpisodeConflict, match="forgotten"):
        await memory.store("again", episode_id=gone)
    assert (await memory.forget(session_id="notes")).episodes == 17
    assert [episode async for episode in memory.list("notes")] == []
    assert (await memory.verify()).ok


async def test_an_episode_is_findable_by_its_own_process_at_once(memory: EpisodicMemory) -> None:
    receipt = await memory.store("the zebra crossed the motorway near Ulm")
    assert (receipt.state, receipt.duplicate) == (State.PENDING, False)
    assert [hit.episode_id for hit in await memory.recall("zebra motorway")] == [receipt.episode_id]


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


async def test_corrections_are_found_and_refusals_change_nothing(memory: EpisodicMemory) -> None:
    receipt = await memory.store("the meeting is on Monday", outcome="neutral")
    await memory.flush(timeout=60)
    changed = await memory.update(receipt.episode_id, content="the workshop is on Friday", importance=1)
    assert (changed.content, changed.importance, changed.outcome) == ("the workshop is on Friday", 1.0, "neutral")
    assert (await memory.recall("workshop Friday"))[0].content == "the workshop is on Friday"
    await memory.flush(timeout=60)
    assert (await memory.recall("workshop Friday"))[0].content == "the workshop is on Friday"
    with pytest.raises(errors.InvalidInput):
        await memory.update(receipt.episode_id, content="")
    with pytest.raises(errors.NotFound):
        await memory.update("unknown", content="x")


BAD_CALLS = [
    ("recall", ("",), {}, "query is empty"),
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


async def test_an_empty_memory_answers_with_nothing(memory: EpisodicMemory) -> None:
    assert len(await memory.recall("anything")) == 0
    assert await memory.sessions() == []
    assert await memory.consolidate() == []
    await memory.flush(timeout=5)
    assert (await memory.verify()).ok


async def test_a_memory_of_a_session_stays_in_it(tmp_path: Path) -> None:
    async with EpisodicMemory("ops", data_dir=tmp_path) as ops, EpisodicMemory(data_dir=tmp_path) as whole:
        await ops.store("a deploy of the shop failed")
        await whole.store("a deploy of the blog failed")
        assert [hit.session_id for hit in await ops.recall("deploy")] == ["ops"]
        assert len(await whole.recall("deploy")) == 2  # two memories on one data directory share it
        assert [info.session_id for info in await whole.sessions()] == ["default", "ops"]
        assert [episode.session_id async for episode in ops.list()] == ["ops"]


async def test_hooks_see_and_change_what_passes(memory: EpisodicMemory, no_hooks: None) -> None:
    seen: list[tuple[str, str]] = []

    @hooks.before_store
    def redact(episode: Episode) -> Episode | None:
        if "drop" in episode.content:
            raise errors.InvalidInput("this is not to be stored")
        return Episode(episode.content.replace("hunter2", "***"), context={"redacted": True})

    @hooks.after_store
    async def note(episode: Episode, receipt: Receipt) -> None:
        seen.append((episode.content, receipt.episode_id))

    receipt = await memory.store("the password is hunter2", episode_id="kept")
    assert receipt.episode_id == "kept"
    assert (await memory.get("kept")).content == "the password is ***"
    batch = await memory.store_batch(["drop this", "hunter2 again"])
    assert [index for index, _ in batch.rejected] == [0]
    assert [content for content, _ in seen] == ["the password is ***", "*** again"]

    @hooks.after_recall
    def broken(recall: object) -> None:
        raise RuntimeError("never fatal")

    assert len(await memory.recall("password")) == 2


async def test_buffers_hold_what_was_stored_and_recalled(tmp_path: Path) -> None:
    async with EpisodicMemory("s", data_dir=tmp_path, working_memory_size=4, episode_buffer_size=50) as memory:
        batch = await memory.store_batch([f"note number {i}" for i in range(60)])
        ids = [receipt.episode_id for receipt in batch.accepted]
        assert [e.episode_id for e in await memory.recent()] == ids[-50:]
        assert [e.episode_id for e in await memory.working_memory()] == ids[-4:]
        await memory.forget(ids[-1])
        assert [e.episode_id for e in await memory.working_memory()] == ids[-4:-1]
        best = (await memory.recall("note number 58", limit=1))[0]
        assert (await memory.working_memory())[-1].episode_id == best.episode_id


async def test_figures_are_measured(memory: EpisodicMemory) -> None:
    from ww.observability import get_metrics

    await memory.store("something to measure")
    await memory.recall("measure")
    figures = get_metrics()
    assert figures.recall_latency_p50 > 0
    assert figures.store_latency_p95 > 0
    with use(memory):
        assert get_metrics(scope="deployment").recall_latency_p50 > 0
    with pytest.raises(errors.InvalidInput):
        get_metrics(scope="universe")  # type: ignore[arg-type]


def test_blocking_functions_are_the_same_and_refuse_an_event_loop(tmp_path: Path) -> None:
    with EpisodicMemory(data_dir=tmp_path) as memory:
        sync = memory.sync
        batch = sync.store_batch(f"line {i}" for i in range(10))
        sync.flush(timeout=60)
        assert len(sync.recall("line", limit=5)) == 5
        listed = sync.list()
        assert [e.episode_id for e in listed] == [r.episode_id for r in batch.accepted]

        async def stream() -> AsyncIterator[str]:
            yield "from a stream"
            await asyncio.sleep(0)
            yield "and more"

        assert len(sync.store_batch(stream()).accepted) == 2

        def while_reading() -> Iterator[str]:
            yield sync.recall("line 3", limit=1)[0].content + " again"

        assert len(sync.store_batch(while_reading()).accepted) == 1

        async def inside() -> None:
            for call in (lambda: sync.recall("x"), lambda: sync.list()):
                with pytest.raises(errors.BlockingCall, match=r"await ww\.memory\.(recall|list)"):
                    call()
            assert (await asyncio.to_thread(sync.counts)).acknowledged == 13  # another thread has no loop

        asyncio.run(inside())


def test_one_memory_serves_repeated_loops_several_loops_and_threads(tmp_path: Path) -> None:
    with EpisodicMemory(data_dir=tmp_path) as memory:
        for i in range(3):
            asyncio.run(memory.store(f"loop {i}"))
        failures: list[BaseException] = []

        def work(name: str) -> None:
            async def several() -> None:
                await asyncio.gather(*(memory.store(f"{name} {i}") for i in range(5)))

            try:
                asyncio.run(several())
                memory.sync.store(f"{name} sync")
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(f"thread {i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert memory.sync.counts().acknowledged == 3 + 4 * 6


def test_a_memory_survives_fork(tmp_path: Path) -> None:
    with EpisodicMemory(data_dir=tmp_path) as memory:
        memory.sync.store("before the fork")
        memory.sync.flush(timeout=60)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:  # every way out of the child must end it: pytest goes on in the parent only
            answer = b"failed"
            try:
                asyncio.run(memory.store("in the child", episode_id="child"))
                found = {hit.content for hit in memory.sync.recall("fork child", limit=5)}
                answer = b"ok" if found == {"before the fork", "in the child"} else repr(found).encode()
                memory.close()
            except BaseException as error:
                answer = repr(error).encode()
            finally:
                os.write(write, answer)
                os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == b"ok"
        os.waitpid(pid, 0)
        assert memory.sync.get("child").content == "in the child"
        assert memory.sync.store("after the fork").state is State.PENDING
        memory.sync.flush(timeout=60)
        assert len(memory.sync.recall("fork")) == 3


def test_a_closed_memory_opens_again(tmp_path: Path) -> None:
    memory = EpisodicMemory(data_dir=tmp_path)
    memory.sync.store("x", episode_id="x")
    memory.close()
    memory.close()
    assert memory.sync.get("x").content == "x"
    memory.close()


def test_module_functions_follow_the_environment_and_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ww.memory import sync
    from ww.memory.default import current

    monkeypatch.setenv("T4DM_DATA_DIR", str(tmp_path / "one"))
    sync.store("x", episode_id="one")
    monkeypatch.setenv("T4DM_DATA_DIR", str(tmp_path / "two"))
    with pytest.raises(errors.NotFound):
        sync.get("one")
    with EpisodicMemory(data_dir=tmp_path / "one") as other, use(other):
        assert sync.get("one").content == "x"
    current().close()


def test_a_data_directory_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(errors.StoreUnavailable) as refusal:
            EpisodicMemory(data_dir=path).sync.store("x")
        line = str(refusal.value)
        assert str(path) in line
        assert "\n" not in line


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    with EpisodicMemory(data_dir=tmp_path / "a" / "b") as memory:
        memory.sync.counts()
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


async def test_no_cache_of_this_process_keeps_what_was_forgotten(memory: EpisodicMemory) -> None:
    import gc

    marker = "xq7-unlikely-marker"
    receipt = await memory.store(f"{marker} is a secret")
    await memory.recall(f"{marker} is a secret")
    await memory.flush(timeout=60)
    await memory.recall(marker)
    await memory.forget(receipt.episode_id)
    held = [o for o in gc.get_objects() if isinstance(o, Episode) and marker in o.content]
    assert held == []
    keys = [
        o
        for o in gc.get_objects()
        if isinstance(o, tuple) and any(i == f"{marker} is a secret" for i in o if type(i) is str)
    ]
    assert keys == []


def test_an_embedded_process_loads_the_hooks_that_the_setting_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hooks: None
) -> None:
    (tmp_path / "shouting_hooks.py").write_text(
        "from ww import hooks, Episode\n"
        "@hooks.before_store\n"
        "def shout(episode):\n"
        "    return Episode(episode.content.upper())\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with EpisodicMemory(data_dir=tmp_path / "data", hooks=["shouting_hooks"]) as memory:
        assert memory.sync.get(memory.sync.store("quiet").episode_id).content == "QUIET"
    with pytest.raises(errors.ConfigurationError, match="no_such_hooks"):
        EpisodicMemory(data_dir=tmp_path / "data", hooks=["no_such_hooks"]).sync.counts()


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"recall_weight_late": 1.0}, True),
        ({"recall_weight_late": 1.0, "late_interaction_stored": False}, False),
        ({}, False),
    ],
    ids=["on", "on-but-not-stored", "off"],
)
def test_word_pieces_are_kept_where_the_settings_ask_for_it_until_the_episode_is_forgotten(
    tmp_path: Path, settings: dict[str, Any], kept: bool
) -> None:
    with EpisodicMemory(data_dir=tmp_path, **settings) as memory:
        stored = memory.sync.store("the lighthouse keeper paints the gallery").episode_id
        memory.sync.flush(timeout=60)
        vectors = memory.core.deployment.vectors
        assert (stored in vectors.pieces([stored])) is kept
        assert [hit.episode_id for hit in memory.sync.recall("who paints the gallery")] == [stored]
        memory.sync.forget(stored)
        assert vectors.pieces([stored]) == {}
