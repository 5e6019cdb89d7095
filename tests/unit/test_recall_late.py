"""Late interaction: signs instead of floats, best matches, rare words, neighbours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tests.integration.recalling import WordEncoder, WordTokens
from ww_core.models import Episode
from ww_core.recall.late import LateInteraction, best_matches
from ww_core.recall.pieces import Signs, reader
from ww_core.recall.profile import Frequency

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def turn(i: int, content: str, minutes: float = 1) -> Episode:
    return Episode(content, episode_id=f"e{i}", timestamp=NOON + timedelta(minutes=minutes * i))


def tokens(query: str) -> WordTokens:
    return WordEncoder().encode_query_with_tokens(query)[1]


def test_signs_take_one_bit_a_component_and_keep_the_direction() -> None:
    rows = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    signs = Signs.of(rows)
    assert signs.bits.nbytes == 3 * 8
    assert signs.cosines(np.sign(rows) / 8).diagonal() == pytest.approx([1, 1, 1])
    similarity = signs.cosines(rows)
    assert (similarity.argmax(axis=1) == [0, 1, 2]).all()
    assert np.diag(similarity).min() > 0.7


def test_each_word_of_the_query_finds_its_best_match() -> None:
    rows = np.where(np.eye(8) > 0, 1, -1).astype(np.float32) / np.float32(8**0.5)
    best = best_matches(rows[:2], [Signs.of(rows[:1]), Signs.of(rows), Signs.of(rows[:0])])
    assert best[0].tolist() == pytest.approx([1, 0.5])
    assert best[1].tolist() == pytest.approx([1, 1])
    assert best[2].tolist() == [-1, -1]


def test_the_episode_that_has_every_word_wins() -> None:
    late = LateInteraction(WordEncoder(), candidates=3, kept=100)
    episodes = [
        turn(0, "a red apple fell"),
        turn(1, "red green blue"),
        turn(2, "nothing of that"),
        turn(3, "red apple"),
    ]
    part = late.part(tokens("red apple"), episodes, np.array([1, 1, 1, -9], np.float32), {}, Frequency())
    assert part.argmax() == 0
    assert part[3] == part[:3].min()


def test_a_neighbours_word_counts_for_the_episode_beside_it_within_the_stretch() -> None:
    total = np.array([1, 1, 1], np.float32)
    around = {"e0": (None, "e1"), "e1": ("e0", "e2"), "e2": ("e1", None)}
    near = [turn(0, "an apple"), turn(1, "yes indeed"), turn(2, "no never")]
    far = [turn(0, "an apple", 99), turn(1, "yes indeed", 99), turn(2, "no never", 99)]

    def part(episodes: list[Episode]) -> np.ndarray:
        return LateInteraction(WordEncoder(), candidates=3, kept=9).part(
            tokens("apple"), episodes, total, around, Frequency()
        )

    assert part(near)[1] > part(far)[1]


def test_rare_words_decide_once_enough_texts_were_read() -> None:
    encoder = WordEncoder()
    late = LateInteraction(encoder, candidates=100, kept=1000)
    frequency = Frequency.of(encoder.word_pieces([f"common word{i}" for i in range(60)]))
    rivals = [turn(100, "common thing"), turn(101, "rare thing")]
    part = late.part(tokens("common rare"), rivals, np.zeros(2, np.float32), {}, frequency)
    assert part[1] > part[0]


def test_a_single_candidate_needs_no_second_reading() -> None:
    late = LateInteraction(WordEncoder(), candidates=5, kept=9)
    assert late.part(tokens("apple"), [turn(0, "an apple")], np.zeros(1, np.float32), {}, Frequency()).tolist() == [0]


def test_what_is_stored_is_read_instead_of_encoded_and_never_for_another_text() -> None:
    encoder = WordEncoder()
    episodes = [turn(0, "an apple"), turn(1, "a pear"), turn(2, "a plum")]
    kept = dict(zip(("e0", "e1"), reader(encoder)(["an apple", "a fig"]), strict=True))
    total = np.zeros(3, np.float32)
    plain = LateInteraction(encoder, candidates=3, kept=9).part(tokens("an apple"), episodes, total, {}, Frequency())
    encoder.encoded = 0
    late = LateInteraction(encoder, candidates=3, kept=9, stored=lambda ids: {i: kept[i] for i in ids if i in kept})
    part = late.part(tokens("an apple"), episodes, total, {}, Frequency())
    assert part.tolist() == plain.tolist()
    assert encoder.encoded == 2, "the episode that nothing is stored of, and the one that changed"


def test_texts_without_word_pieces_leave_nothing_to_store() -> None:
    assert reader(WordEncoder())([""]) == [b""]
