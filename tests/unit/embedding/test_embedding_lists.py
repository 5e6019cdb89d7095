"""Lists of texts that go through the model one after the other without a pause between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ww_core.config import Settings
from ww_core.embedding import EmbeddingService
from ww_core.embedding.paths import Choice
from ww_core.embedding.runner import ModelOptions, Runner
from ww_core.embedding.source import locate
from ww_core.embedding.tokens import Batch
from ww_core.models import Vector

CPU = ModelOptions(device="cpu", threads=1)
FIRST = ["the deploy failed: out of disk", "hello world", "a", "b"]
SECOND = ["the tide is low tonight", "yes"]


class Ahead:
    """Runs two passes beside each other, as far as whoever asks can tell, and keeps what it was asked."""

    def __init__(self, runner: Runner, name: str = "onnx") -> None:
        self.name, self.device = name, "cpu"
        self.log: list[str] = []
        self.fails = False
        self._inner = runner.backend

    def run(self, batches: Iterable[Batch]) -> Iterator[Vector]:
        waiting: list[Batch] = []
        for batch in batches:
            self.log.append(f"begun {len(batch.rows)}")
            waiting.append(batch)
            if len(waiting) > 2:
                yield self._made(waiting.pop(0))
        for batch in waiting:
            yield self._made(batch)

    def _made(self, batch: Batch) -> Vector:
        if self.fails:
            raise RuntimeError("kernel not found")
        self.log.append(f"made {len(batch.rows)}")
        return next(self._inner.run([batch]))

    def pooled_and_states(self, batch: Batch) -> tuple[Vector, Vector]:
        return self._inner.pooled_and_states(batch)


@pytest.fixture
def runner(tiny_model: Callable[..., Path]) -> Runner:
    return Runner(locate(str(tiny_model())), CPU)


def lists(runner: Runner, log: list[str], *texts: list[str]) -> Iterator[list[list[int]]]:
    for number, some in enumerate(texts):
        log.append(f"list {number}")
        yield runner.pieces.ids(some)


def collected(made: Iterator[tuple[tuple[int, ...], Vector]]) -> Vector:
    found = [(place, row) for places, rows in made for place, row in zip(places, rows, strict=True)]
    found.sort(key=lambda one: one[0])
    assert [place for place, _ in found] == list(range(len(found))), "each once"
    return np.stack([row for _, row in found])


def test_the_next_list_is_asked_for_while_passes_are_under_way(runner: Runner) -> None:
    wanted = runner.embed(runner.pieces.ids([*FIRST, *SECOND]))
    backend = runner.backend = Ahead(runner)
    found = collected(runner.embed_as_made(lists(runner, backend.log, FIRST, SECOND), rows=1))
    assert (found * wanted).sum(axis=1).min() > 0.99999
    asked = backend.log.index("list 1")
    assert backend.log[:asked].count("begun 1") - backend.log[:asked].count("made 1") >= 2
    assert backend.log[:asked].count("begun 1") == 3, "after three quarters of the first"


def test_what_fails_in_the_middle_is_made_by_the_reference_and_nothing_twice(runner: Runner) -> None:
    wanted = runner.embed(runner.pieces.ids([*FIRST, *SECOND]))
    backend = runner.backend = Ahead(runner)
    made = runner.embed_as_made(lists(runner, backend.log, FIRST, SECOND), rows=1)
    first = next(made)
    backend.fails = True
    found = collected(iter([first, *made]))
    assert (found * wanted).sum(axis=1).min() > 0.99999
    assert runner.backend.name == "torch"


def test_a_path_that_is_found_meanwhile_has_the_next_list(runner: Runner) -> None:
    old, new = Ahead(runner), Ahead(runner, "int16")
    runner.backend = old

    def changing() -> Iterator[list[list[int]]]:
        yield runner.pieces.ids(FIRST)
        runner.backend, runner.choice = new, Choice("int16", "found")
        yield runner.pieces.ids(SECOND)
        yield runner.pieces.ids(FIRST)

    assert len(collected(runner.embed_as_made(changing()))) == 2 * len(FIRST) + len(SECOND)
    assert [line for line in new.log if line.startswith("made")], "it took over at the third list"


def test_an_error_of_the_lists_comes_after_what_was_made_and_is_not_the_models(runner: Runner) -> None:
    backend = runner.backend = Ahead(runner)

    def broken() -> Iterator[list[list[int]]]:
        yield runner.pieces.ids(FIRST)
        raise RuntimeError("the outbox is away")

    made = runner.embed_as_made(broken(), rows=1)
    places = [next(made)[0] for _ in FIRST]
    assert sorted(places) == [(i,) for i in range(len(FIRST))]
    with pytest.raises(RuntimeError, match="the outbox is away"):
        next(made)
    assert runner.backend is backend


def test_places_go_on_from_list_to_list_and_what_is_known_does_not_wait(tiny_model: Callable[..., Path]) -> None:
    service = EmbeddingService(Settings(embedding_model=str(tiny_model()), embedding_threads=1))
    service.encode(SECOND)
    asked: list[int] = []

    def coming() -> Iterator[list[str]]:
        for number, texts in enumerate([[*FIRST, FIRST[0]], SECOND, [], FIRST]):
            asked.append(number)
            yield texts

    seen: list[tuple[int, int]] = []
    rows: dict[int, Vector] = {}
    for place, row in service.windows_as_made(coming()):
        seen.append((place, len(asked)))
        assert place not in rows
        rows[place] = row
    texts = [*FIRST, FIRST[0], *SECOND, *FIRST]
    assert sorted(rows) == list(range(len(texts)))
    for place, expected in enumerate(service.embed_windows(texts)):
        np.testing.assert_allclose(rows[place], expected, atol=1e-5)
    assert all(lists <= 3 for place, lists in seen if place in (5, 6)), "before the last list was asked for"
    assert service.embed_windows([]) == []
