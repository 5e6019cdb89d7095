"""Claims in turn: the next before the model has nothing to do, but what may kill a worker by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from tests.unit.maintenance.conftest import Bench
from ww_core.errors import StoreUnavailable
from ww_core.maintenance.drain import never
from ww_core.maintenance.leases import Lease, Leases
from ww_core.models import Vector
from ww_core.stores.ports import Claim

SIZE = 4


@pytest.fixture
def small(bench: Bench) -> Bench:
    bench.settings = bench.settings.replace(embedding_claim_size=SIZE)
    return bench


def leases(bench: Bench) -> Leases:
    return Leases(bench.graph, bench.settings, bench.metrics, bench.clock)


def first(made: Leases) -> tuple[Lease, list[Claim]]:
    claimed = made.claim()
    assert claimed is not None
    return claimed


def names(turn: Iterator[tuple[Lease, list[Claim]]]) -> list[list[str]]:
    return [[claim.episode.episode_id for claim in claims] for _, claims in turn]


def test_claims_follow_each_other_until_there_are_none(small: Bench) -> None:
    ids = small.store(*(f"text {i}" for i in range(18)))
    made = leases(small)
    seen = []
    for lease, claims in made.in_turn(first(made), never):
        seen.append([claim.episode.episode_id for claim in claims])
        lease.drop(seen[-1][:1])
    assert seen == [ids[:4], ids[4:8], ids[8:12]], "never more than three are held, in part at least"
    assert (made.held, made.full) == (9, True)
    assert names(made.in_turn(first(made), never)) == [ids[12:16]]
    assert names(made.in_turn(first(made), never)) == [ids[16:]]
    assert (made.full, made.claim()) == (False, None)
    made.give_back(0.0)
    assert small.graph.counts().pending == 15


def test_nothing_is_claimed_when_it_is_over(small: Bench) -> None:
    ids = small.store(*(f"text {i}" for i in range(10)))
    made = leases(small)
    assert names(made.in_turn(first(made), lambda: True)) == [ids[:4]]
    assert made.held == SIZE


def test_what_was_handed_out_before_is_under_way_with_nothing_else(small: Bench) -> None:
    suspects = small.store(*(f"suspect {i}" for i in range(3)))
    small.graph.claim(3, token="dead", lease_seconds=1)
    small.seconds = 2
    small.graph.expire_leases(max_attempts=3)
    ids = small.store(*(f"text {i}" for i in range(6)))
    made = leases(small)
    turns = []
    while (claimed := made.claim()) is not None:
        turns.append(names(made.in_turn(claimed, never)))
    assert turns == [[suspects[:2]], [suspects[2:]], [ids[:4], ids[4:]]]


def test_it_is_given_back_at_once_where_something_is_under_way(small: Bench) -> None:
    small.store(*(f"text {i}" for i in range(4)))
    made = leases(small)
    turn = made.in_turn(first(made), never)
    assert len(next(turn)[1]) == 4
    suspects = small.store("suspect")
    small.graph.claim(1, token="dead", lease_seconds=0.001)
    small.seconds = 1
    small.graph.expire_leases(max_attempts=3)
    assert list(turn) == [], "it is not begun beside the others"
    assert (small.graph.counts().leased, made.held) == (4, 4), "nor held: a worker that dies now says nothing of it"
    assert names(iter([first(made)])) == [suspects]
    made.give_back(0.0)
    assert (small.graph.counts().pending, made.held) == (5, 0)


def test_a_claim_that_fails_is_trouble_for_later(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small.store(*(f"text {i}" for i in range(8)))
    made = leases(small)
    turn = made.in_turn(first(made), never)
    next(turn)
    assert made.full

    def away(*_: Any, **__: Any) -> list[Claim]:
        raise StoreUnavailable("the graph is away")

    monkeypatch.setattr(small.graph, "claim", away)
    assert list(turn) == []
    assert isinstance(made.trouble, StoreUnavailable)


def test_a_claim_that_was_not_full_is_handed_on_before_the_next(small: Bench) -> None:
    ids = small.store("text 0", "text 1")
    made = leases(small)
    turn = made.in_turn(first(made), never)
    assert len(next(turn)[1]) == 2
    more = small.store("text 2")
    assert list(turn) == []
    assert names(iter([first(made)])) == [more]
    assert made.held == len(ids + more)


@pytest.mark.parametrize("poison", [3, 4, 9])
def test_a_text_that_fails_while_two_claims_are_under_way_is_found(small: Bench, poison: int) -> None:
    texts = [f"text {i}" for i in range(12)]
    texts[poison] = "poison"
    small.store(*texts)
    rows = small.embedder.embed_windows(texts)

    def ahead(lists: Iterable[Sequence[str]]) -> Iterator[tuple[int, Vector]]:
        # draws all lists before it makes anything of them, as a path with many passes under way would
        drawn = [text for some in lists for text in some]
        for place in reversed(range(len(drawn))):
            if drawn[place] == "poison":
                raise RuntimeError("cannot encode")
            yield place, rows[texts.index(drawn[place])] if drawn[place] in texts else np.ones((1, 8), np.float32)

    small.embedder.windows_as_made = ahead  # type: ignore[assignment, method-assign]
    report = small.drain().run()
    assert (report.embedded, report.failed, report.dead, report.outage) == (11, 1, 1, "")
    (letter,) = small.graph.dead_letters()
    assert (letter.episode_id, letter.attempts) == (f"e{poison}", 2)
    assert small.verify().ok


def test_what_was_embedded_before_the_outbox_failed_is_kept(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    small.store(*(f"text {i}" for i in range(12)))
    claim, calls = small.graph.claim, iter(range(100))

    def once(*arguments: Any, **how: Any) -> list[Claim]:
        if next(calls) == 1:
            raise StoreUnavailable("the graph is away")
        return claim(*arguments, **how)

    monkeypatch.setattr(small.graph, "claim", once)
    drain = small.drain()
    report = drain.run()
    assert (report.embedded, report.failed, report.dead) == (4, 0, 0)
    assert "the graph is away" in report.outage
    small.seconds += 60
    assert drain.run().embedded == 8
    assert small.verify().ok
