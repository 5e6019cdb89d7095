"""One memory serves event loops, threads, blocking callers and forks, from a directory of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ww import errors
from ww.memory.default import use
from ww.memory.episodic import EpisodicMemory
from ww_core.models import State


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
