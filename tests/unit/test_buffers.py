"""Buffers are bounded, keep the latest, and forget what is erased."""

import threading

from ww_core.buffers import Buffers, CA1Buffer, EpisodeBuffer, WorkingMemory
from ww_core.models import Episode


def episodes(n: int, session: str = "s", start: int = 0) -> list[Episode]:
    return [Episode(f"text {i}", episode_id=f"{session}-{i}", session_id=session) for i in range(start, start + n)]


def ids(found: tuple[Episode, ...]) -> list[str]:
    return [e.episode_id for e in found]


def test_working_memory_keeps_what_was_attended_last() -> None:
    mind = WorkingMemory(3)
    mind.attend(episodes(4))
    mind.attend([Episode("text 1", episode_id="s-1", session_id="s")])
    assert ids(mind.episodes("s")) == ["s-2", "s-3", "s-1"]
    assert mind.episodes("other") == ()


def test_ca1_gives_way_at_its_size_and_discards_the_embedded() -> None:
    ca1 = CA1Buffer(3)
    ca1.add(episodes(5))
    assert ids(ca1.episodes()) == ["s-2", "s-3", "s-4"]
    ca1.discard(["s-3", "unknown"])
    assert ids(ca1.episodes()) == ["s-2", "s-4"]


def test_episode_buffer_is_per_session_and_finds_equal_content() -> None:
    buffer = EpisodeBuffer(3)
    buffer.add(episodes(5, "a") + episodes(2, "b"))
    assert ids(buffer.latest("a")) == ["a-2", "a-3", "a-4"]
    assert ids(buffer.latest("a", 1)) == ["a-4"]
    assert buffer.latest("a", 0) == ()
    found = buffer.same_content("b", "text 1")
    assert found is not None
    assert found.episode_id == "b-1"
    assert buffer.same_content("b", "text 9") is None


def test_nothing_holds_an_episode_or_a_session_that_was_forgotten() -> None:
    buffers = Buffers()
    buffers.stored(episodes(3, "a") + episodes(3, "b"))
    buffers.forget(["a-1"])
    buffers.forget([], session_id="b")
    assert ids(buffers.ca1.episodes()) == ["a-0", "a-2"]
    assert ids(buffers.episodes.latest("a")) == ["a-0", "a-2"]
    assert ids(buffers.working_memory.episodes("a")) == ["a-0", "a-2"]
    assert buffers.episodes.latest("b") == ()
    assert buffers.working_memory.episodes("b") == ()


def test_threads_may_fill_and_read_at_once() -> None:
    buffers = Buffers(ca1=20)
    failures: list[BaseException] = []

    def fill(name: str) -> None:
        try:
            for i in range(300):
                buffers.stored(episodes(1, name, i))
                buffers.ca1.episodes()
                buffers.episodes.latest(name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fill, args=(f"t{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(buffers.ca1) == 20
