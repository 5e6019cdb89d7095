"""What a drain embeds, counts against a text, gives back, and leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.maintenance.conftest import Bench
from ww_core.errors import InvalidInput, ModelUnavailable, StoreUnavailable
from ww_core.maintenance import scrub
from ww_core.maintenance.erase import erase
from ww_core.models import State
from ww_core.stores.ports import CONTENT, Search

TEXTS = [f"text number {i} " + "x" * (i % 7) for i in range(40)]


def test_what_is_pending_becomes_embedded_and_findable(bench: Bench) -> None:
    ids = bench.store(*TEXTS, "long " * 60)
    report = bench.drain().run()
    assert (report.embedded, report.failed, report.dead, report.more) == (41, 0, 0, False)
    assert bench.graph.counts().embedded == 41
    assert bench.vectors.generations(ids[-1:]) == {"e40": (1, 4)}
    rows = bench.embedder.embed_windows([TEXTS[7]])
    hits = bench.vectors.search([Search(CONTENT, rows[0][0], limit=1)])[0]
    assert hits[0].episode_id == "e7"
    assert bench.verify().ok


def test_word_pieces_that_cannot_be_read_hold_nothing_up(bench: Bench) -> None:
    def pieces(texts: Sequence[str]) -> list[bytes]:
        raise RuntimeError("the model does not take this")

    bench.store(*TEXTS[:5])
    report = bench.drain(pieces=pieces).run()
    assert (report.embedded, report.failed, report.outage) == (5, 0, "")
    assert bench.verify().ok


def test_an_empty_outbox_costs_no_model(bench: Bench) -> None:
    def fail(texts: Sequence[str]) -> None:
        raise AssertionError("the model was loaded")

    bench.embedder.before = fail
    assert bench.drain().run().embedded == 0


def test_only_the_text_that_fails_alone_is_counted(bench: Bench) -> None:
    ids = bench.store(*TEXTS, "poison", *TEXTS[:5])

    def refuse(texts: Sequence[str]) -> None:
        if "poison" in texts:
            raise RuntimeError("cannot encode")

    bench.embedder.before = refuse
    drain = bench.drain()
    first = drain.run()
    assert (first.embedded, first.failed, first.dead, first.outage) == (45, 1, 1, "")
    assert bench.graph.counts().dead == 1
    letter = bench.graph.dead_letters()[0]
    assert (letter.episode_id, letter.attempts, letter.error) == (ids[40], 2, "RuntimeError: cannot encode")
    assert "RuntimeError" in letter.traceback
    assert bench.verify().ok


def test_a_model_that_fails_on_everything_kills_nothing(bench: Bench) -> None:
    bench.store(*TEXTS)

    def broken(texts: Sequence[str]) -> None:
        if texts:
            raise RuntimeError("device-side assert")

    bench.embedder.before = broken
    drain = bench.drain()
    for _ in range(5):
        report = drain.run()
        assert (report.embedded, report.failed, report.dead) == (0, 0, 0)
        assert report.retry_in > 0
        assert "device-side assert" in report.outage
        bench.seconds += report.retry_in
    assert bench.graph.counts().pending == 40
    bench.embedder.before = lambda texts: None
    bench.seconds += 60
    assert drain.run().embedded == 40


@pytest.mark.parametrize("error", [ModelUnavailable("no model"), MemoryError(), OSError("no disk")])
def test_an_outage_is_no_attempt_and_waits_longer_each_time(bench: Bench, error: Exception) -> None:
    bench.store("alone")

    def away(texts: Sequence[str]) -> None:
        if texts:
            raise error

    bench.embedder.before = away
    drain = bench.drain()
    waits = []
    for _ in range(8):
        tried = drain.run()
        waits.append(tried.retry_in)
        assert bench.graph.counts().pending == 1
        waiting = drain.run()
        assert waiting.outage == tried.outage != "", "it still says why"
        assert waiting.retry_in == tried.retry_in
        bench.seconds += waits[-1]
    assert waits == sorted(waits)
    assert waits[0] < 1 < waits[-1] <= 30
    bench.embedder.before = lambda texts: None
    assert drain.run().embedded == 1
    assert bench.breaker.failures == 0


def test_memory_that_suffices_for_fewer_texts_is_enough(bench: Bench) -> None:
    bench.store(*TEXTS)

    def little(texts: Sequence[str]) -> None:
        if len(texts) > 4:
            raise MemoryError

    bench.embedder.before = little
    assert bench.drain().run().embedded == 40


class FailingVectors:
    """The real store, with the next calls of one method failing."""

    def __init__(self, inner: Any, method: str, errors: list[Exception]) -> None:
        self._inner, self._method, self._errors = inner, method, errors

    def __getattr__(self, name: str) -> Any:
        if name == self._method and self._errors:
            raise self._errors.pop()
        return getattr(self._inner, name)


def test_a_store_that_is_away_gets_everything_later(bench: Bench) -> None:
    bench.store(*TEXTS)
    real = bench.vectors
    bench.vectors = FailingVectors(real, "upsert", [StoreUnavailable("away")])  # type: ignore[assignment]
    drain = bench.drain()
    report = drain.run()
    assert (report.failed, report.dead) == (0, 0)
    assert "away" in report.outage
    assert bench.graph.counts().leased == 0
    bench.seconds += report.retry_in
    assert report.embedded + drain.run().embedded == 40
    bench.vectors = real
    assert bench.verify().ok


def test_a_text_that_the_vector_store_refuses_is_counted(bench: Bench) -> None:
    bench.store("only one")
    real = bench.vectors
    bench.vectors = FailingVectors(real, "upsert", [InvalidInput("odd payload")] * 2)  # type: ignore[assignment]
    assert bench.drain().run().dead == 1
    bench.vectors = real


def test_stopping_gives_the_rest_back_at_once(bench: Bench) -> None:
    bench.store(*["long text " * 900] * 30)
    steps: list[int] = []
    bench.embedder.before = lambda texts: steps.append(len(texts))
    report = bench.drain().run(should_stop=lambda: len(steps) > 2)
    counts = bench.graph.counts()
    assert (counts.leased, counts.dead) == (0, 0)
    assert counts.pending > 0
    assert counts.embedded == report.embedded > 0
    assert report.more
    assert bench.graph.has_work()
    assert bench.verify().ok


def test_a_drain_ends_when_its_time_is_over(bench: Bench) -> None:
    bench.store(*["long text " * 900] * 30)

    def slow(texts: Sequence[str]) -> None:
        bench.seconds += 4 if texts else 0

    bench.embedder.before = slow
    report = bench.drain().run(max_seconds=15)
    assert report.more
    assert 0 < report.embedded < 30
    assert bench.seconds <= 20
    assert bench.graph.counts().leased == 0


def test_an_interruption_is_no_attempt(bench: Bench) -> None:
    class TimeLimit(Exception):
        pass

    bench.store(*TEXTS)

    def interrupt(texts: Sequence[str]) -> None:
        if texts:
            raise TimeLimit

    bench.embedder.before = interrupt
    report = bench.drain(interruptions=(TimeLimit,)).run()
    assert (report.failed, report.dead, report.retry_in) == (0, 0, 0)
    assert bench.graph.counts().pending == 40


def test_a_lease_is_renewed_while_the_model_works(bench: Bench) -> None:
    bench.store(*["long text " * 900] * 50)

    def slow(texts: Sequence[str]) -> None:
        bench.seconds += 25 if texts else 0
        assert bench.graph.expire_leases(max_attempts=2) == 0

    bench.embedder.before = slow
    assert bench.drain().run(max_seconds=10_000).embedded == 50
    assert bench.seconds > 120
    assert bench.graph.get(["e0"])["e0"].generation == 1


def test_a_worker_that_slept_past_its_lease_writes_nothing(bench: Bench) -> None:
    ids = bench.store("first", "second")

    def sleep(texts: Sequence[str]) -> None:
        if texts:
            bench.embedder.before = lambda texts: None
            bench.seconds += 100
            assert bench.graph.expire_leases(max_attempts=2) == 2
            erase(bench.graph, bench.vectors, episode_ids=ids[:1])

    bench.embedder.before = sleep
    report = bench.drain().run(max_seconds=1000)
    assert report.embedded == 1
    assert bench.graph.get(ids)["e1"].generation == 2
    assert bench.vectors.generations(ids) == {"e1": (2, 1)}
    assert bench.verify().ok


def test_what_is_erased_between_claim_and_mark_leaves_no_points(bench: Bench) -> None:
    ids = bench.store("secret", "other")

    def forget(texts: Sequence[str]) -> None:
        if texts:
            erase(bench.graph, bench.vectors, episode_ids=ids[:1])

    bench.embedder.before = forget
    assert bench.drain().run().embedded == 1
    assert list(bench.vectors.generations(ids)) == ["e1"]
    assert bench.verify().ok
    assert scrub.pending(bench.graph), "a deleted point leaves numbers in the files"


def test_what_is_changed_between_claim_and_mark_is_embedded_again(bench: Bench) -> None:
    ids = bench.store("old words")
    changed: list[str] = []

    def change(texts: Sequence[str]) -> None:
        if texts and not changed:
            changed.append(bench.graph.update(ids[0], content="new words").content)

    bench.embedder.before = change
    assert bench.drain().run().embedded == 1
    assert bench.graph.get(ids)["e0"].state is State.EMBEDDED
    stored = bench.vectors.vectors(ids)[0].vector
    assert stored == pytest.approx(bench.embedder.embed_windows(["new words"])[0][0], abs=1e-6)
    assert bench.verify().ok


def test_a_drain_lets_writers_pass_but_not_for_ever(bench: Bench) -> None:
    bench.store(*["long text " * 900] * 10)
    asked: list[float] = []

    def writing() -> bool:
        asked.append(bench.seconds)
        bench.seconds += 0.05
        return True

    assert bench.drain().run(max_seconds=1000, should_yield=writing).embedded == 10
    assert asked


def test_progress_says_how_far_it_came(bench: Bench) -> None:
    bench.store(*TEXTS)
    seen: list[int] = []
    bench.drain().run(on_progress=lambda report: seen.append(report.embedded))
    assert seen == sorted(seen)
    assert seen[-1] == 40


def test_word_pieces_are_written_with_the_points_where_they_are_wanted(bench: Bench) -> None:
    (plain,) = bench.store("not read")
    bench.drain().run()
    (read,) = bench.store("read word by word")
    bench.drain(pieces=lambda texts: [text.encode() for text in texts]).run()
    assert bench.vectors.pieces([plain, read]) == {read: b"read word by word"}
