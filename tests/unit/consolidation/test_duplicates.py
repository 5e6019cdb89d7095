"""Folding what says the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ww_core.consolidation import duplicates
from ww_core.consolidation.duplicates import Texts, fold, fold_within
from ww_core.stores import texts


def unit(rows: list[list[float]]) -> np.ndarray:
    array = np.array(rows, dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def folded(texts: list[str], rows: list[list[float]], threshold: float) -> list[int]:
    return fold(unit(rows), Texts.of(texts), threshold=threshold).tolist()


def test_exact_copies_are_folded_into_the_first_whatever_their_vectors() -> None:
    assert folded(["Disk full", "other", " disk  FULL\n"], [[1, 0], [1, 1], [0, 1]], 1.0) == [0, 1, 0]


def test_near_copies_are_folded_from_the_threshold_on() -> None:
    texts = ["the disk is full", "the disk is quite full", "lunch"]
    rows = [[1, 0], [1, 0.1], [0, 1]]
    assert folded(texts, rows, 0.99) == [0, 0, 2]
    assert folded(texts, rows, 0.999) == [0, 1, 2]


def test_numbers_and_negations_have_to_agree() -> None:
    rows = [[1, 0], [1, 0.01]]
    assert folded(["api-7 failed", "api-8 failed"], rows, 0.9) == [0, 1]
    assert folded(["it did work", "it did not work"], rows, 0.9) == [0, 1]
    assert folded(["it costs 7.50 now", "now it costs 7.50"], rows, 0.9) == [0, 0]


def test_there_are_no_chains() -> None:
    # 0 ~ 1 and 1 ~ 2, but 2 is too far from 0: it is no duplicate of a duplicate.
    rows = [[1, 0], [1, 0.2], [1, 0.4]]
    heads = folded(["a b", "a b c", "a b c d"], rows, 0.975)
    assert all(heads[head] == head for head in heads)


def test_blocks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(20, 8))
    rows = (base[rng.integers(0, 20, 300)] + rng.normal(size=(300, 8)) * 0.05).tolist()
    texts = [f"text {'x' * i}" for i in range(300)]
    whole = folded(texts, rows, 0.98)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert folded(texts, rows, 0.98) == whole
    assert len(set(whole)) < 300


def test_within_cells_copies_are_found_as_if_each_cell_stood_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "STRIP", 4)
    rng = np.random.default_rng(5)
    rows = unit((rng.normal(size=(6, 8))[rng.integers(0, 6, 60)] + 0.05 * rng.normal(size=(60, 8))).tolist())
    cells = rng.integers(-1, 5, 60).astype(np.int32)
    texts = Texts.of(f"text {'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}" for i in range(60))
    heads = fold_within(cells, rows, texts, threshold=0.95)
    assert (heads != np.arange(60)).sum() > 10
    for cell in np.unique(cells):
        own = np.flatnonzero(cells == cell)
        np.testing.assert_array_equal(heads[own], own[fold(rows[own], texts[own], threshold=0.95)])


def test_contractions_are_negations_in_any_text() -> None:
    exacting = Texts.of(["it didn't work", "it did work", "it does not work in 3.5", "it works in 3.5"]).exacting
    assert len(set(exacting.tolist())) == 4


WORDS = [
    "no",
    "Not",
    "never",
    "without",
    "none",
    "nor",
    "cannot",
    "didn't",
    "know",
    "cannon",
    "n't",
    "7.50",
    "a1b2",
    "²",
]


@given(st.lists(st.sampled_from([*WORDS, "work", "-", "it’s", "no-one", "un-never", "withoutnot"]), max_size=8))
def test_what_a_text_is_exacting_about_does_not_depend_on_the_way_it_is_looked_for(words: list[str]) -> None:
    plain = texts.plain(" ".join(words))
    assert duplicates._exacting(plain) == duplicates._EXACTING.findall(plain)
