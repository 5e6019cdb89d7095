"""What only words tell apart is found by them, with the real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import until
from ww.memory.episodic import EpisodicMemory

NOBODY = "redis://127.0.0.1:1/0"
THINGS = ("boiler", "taxi", "invoice", "garden", "violin", "router", "passport", "telescope", "kayak", "mortgage")
NOTES = ("the {thing} was moved, ticket {code}", "please check the {thing} before Friday, see {code}",
         "{code}: {thing} still broken", "nobody answered about the {thing}, {code}")  # fmt: skip
CODES = [f"TCK-{10_007 + 311 * i}" for i in range(120)]


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EpisodicMemory]:
    """Notes that have nothing to do with each other, each with a code of its own."""
    with EpisodicMemory(data_dir=tmp_path_factory.mktemp("exact"), session_id="notes") as made:
        notes = [
            NOTES[(i * 7) % len(NOTES)].format(thing=THINGS[(i * 3 + i // 10) % len(THINGS)], code=code)
            for i, code in enumerate(CODES)
        ]
        made.sync.store_batch(notes)
        made.sync.flush(timeout=120)
        yield made


@pytest.mark.parametrize("question", ["{}", "what about {}", "what happened with ticket {}"])
def test_a_code_is_found_among_notes_without_context(memory: EpisodicMemory, question: str) -> None:
    for code in CODES[::12]:
        first = memory.sync.recall(question.format(code), limit=3)[0]
        assert code in first.content, f"{code} is not in {first.content!r}"


def test_it_is_found_before_notes_of_the_kind_that_the_query_names(tmp_path: Path) -> None:
    """A word such as "invoice" says the kind of thing, the number which one."""
    orders = [f"{THINGS[i % len(THINGS)]} shipped to the customer under INV-{20_400 + i}" for i in range(80)]
    kind = ["the invoice template got a new logo", "where is an invoice as PDF?", "invoice numbers are printed below"]
    with EpisodicMemory(data_dir=tmp_path, session_id="shop") as made:
        made.sync.store_batch([*orders, *kind])
        made.sync.flush(timeout=120)
        for i in range(0, 80, 8):
            first = made.sync.recall(f"invoice INV-{20_400 + i}", limit=3)[0]
            assert first.content == orders[i]


def test_nothing_of_an_erased_text_is_found_at_its_neighbours(tmp_path: Path) -> None:
    """Where nobody works in the background, too: with a broker that is away and no worker."""
    with EpisodicMemory(data_dir=tmp_path, session_id="talk") as made:
        ids = [made.sync.store(f"we talked about the boat and its sails, part {i}").episode_id for i in range(20)]
        secret = made.sync.store("the harbour master is called Quuxaplex, and he has the keys of the boat")
        ids += [made.sync.store(f"we talked about the boat and its engine, part {i}").episode_id for i in range(20)]
        made.sync.flush(timeout=120)
        until(lambda: _found_beside(made, secret.episode_id), what="its neighbours know its words")
    with EpisodicMemory(data_dir=tmp_path, session_id="talk", redis_url=NOBODY) as made:
        made.sync.forget(secret.episode_id)
        answer = made.sync.recall("Quuxaplex", limit=5, explain=True)
        assert {result.episode_id for result in answer} <= set(ids)
        assert all(result.components.get(name, 0) == 0 for result in answer for name in ("bm25", "bm25_context"))


def _found_beside(memory: EpisodicMemory, episode_id: str) -> bool:
    """Whether its context leads to its neighbours: surroundings are made after what is pending is findable."""
    first, *beside = memory.sync.recall("Quuxaplex", limit=3, explain=True)
    assert first.episode_id == episode_id
    return all(result.components["bm25_context"] > 0 for result in beside)
